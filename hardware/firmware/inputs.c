#include "inputs.h"

#include <string.h>

#include "board.h"

#define QUEUED 16          /* a power of 2 */
#define EVENT_BYTES 23     /* of an event on the wire, all of them escaped */

static struct input {
    uint8_t mode, pull_up;
    uint8_t unreported; /* edges since the last report */
    uint16_t holdoff_us;
    uint32_t reported_us;
    bool holds_off; /* since reported_us */
} inputs[INPUTS];

static struct report {
    uint32_t time_us;
    uint8_t input, level, unreported;
} queue[QUEUED];
static uint8_t queue_first, queue_count;
static uint8_t next_input;

void inputs_restart(void)
{
    memset(inputs, 0, sizeof inputs);
    queue_count = 0;
}

static void leave_out(struct input *input)
{
    if (input->unreported < 255)
        input->unreported++;
}

static void settle(struct input *input, uint32_t now_us)
{
    if (input->holds_off && now_us - input->reported_us >= input->holdoff_us)
        input->holds_off = false;
}

static void take(const struct edge *edge)
{
    struct input *input = &inputs[edge->input];
    if (!(input->mode & (edge->level ? INPUT_RISING : INPUT_FALLING)))
        return;
    uint32_t time_us = port_us(edge->tick);
    settle(input, time_us);
    if (input->holds_off) {
        leave_out(input);
    } else if (queue_count == QUEUED) {
        leave_out(input);
        board_edges_lost++;
    } else {
        queue[(queue_first + queue_count++) & (QUEUED - 1)] =
            (struct report){time_us, edge->input, edge->level, input->unreported};
        input->unreported = 0;
        input->reported_us = time_us;
        input->holds_off = true;
    }
}

static void send(const struct report *report)
{
    uint8_t payload[9];
    uint8_t *to = write_u32(payload + 2, report->time_us);
    *to++ = report->input;
    *to++ = report->level;
    *to = report->unreported;
    send_event(EVENT_INPUT, payload, sizeof payload);
}

void inputs_poll(void)
{
    struct edge edge;
    while (port_take_edge(&edge))
        take(&edge);
    if (queue_count && port_has_room(EVENT_BYTES)) {
        send(&queue[queue_first]);
        queue_first = (queue_first + 1) & (QUEUED - 1);
        queue_count--;
    }
}

void inputs_tick(void)
{
    if (inputs[next_input].holds_off)
        settle(&inputs[next_input], port_us(port_now())); /* before the clock could wrap */
    next_input = (uint8_t)(next_input + 1) % INPUTS;
}

/* Look for edges from now on; not anew if that is done already. */
static void watch(uint8_t number, const struct input *wanted)
{
    struct input *input = &inputs[number];
    if (input->mode == wanted->mode && input->pull_up == wanted->pull_up
        && input->holdoff_us == wanted->holdoff_us)
        return;
    *input = *wanted;
    port_set_input(number, wanted->mode, wanted->pull_up);
}

void set_input(const struct request *request)
{
    uint8_t number = request->data[0], mode = request->data[1], pull_up = request->data[2];
    if (number >= INPUTS) {
        refuse(request, REASON_INPUT);
    } else if (mode > INPUT_BOTH || pull_up > 1) {
        refuse(request, REASON_VALUE);
    } else {
        const struct input wanted = {
            .mode = mode,
            .pull_up = pull_up,
            .holdoff_us = (uint16_t)read_number(request->data + 3, 2),
        };
        watch(number, &wanted);
        answer(request, ANSWER_DONE, port_now());
    }
}
