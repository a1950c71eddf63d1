#include "orders.h"

#include <string.h>

#include "board.h"
#include "limits.h"

static uint32_t rise[LINES];     /* tick of the last rising edge */
static uint32_t fall[LINES];     /* tick of the end that was planned for it */
static uint16_t edges_hz[LINES]; /* of the last train, rounded up */

void orders_restart(void)
{
    memset(edges_hz, 0, sizeof edges_hz);
}

static bool may_be_on(uint8_t line, uint32_t width_us)
{
    return width_us >= MIN_WIDTH_US && width_us <= limit_longest_us(line);
}

/* Quickly for the lines that this does not concern. */
static inline uint8_t refusal_in_time(uint8_t line, uint32_t delay_us, uint32_t on_us)
{
    return limits_on_time & bit_of_line[line] ? limit_refusal(line, delay_us, on_us) : 0;
}

static void order_off(const struct request *request, uint8_t line)
{
    uint32_t tick;
    uint8_t bit = bit_of_line[line];
    uint8_t ended = port_drop(bit, &tick);
    answer(request, ended ? ANSWER_DONE : ANSWER_UNCHANGED, tick);
    limits_drop(bit, tick);
}

/* ---- on, pulse and level ---- */

/* A new order never keeps a line on beyond what its limits allow, counted from its rising edge. Nor
 * is an end moved to where the target might be late with it. */
static bool extend(uint8_t line, uint8_t duty, uint32_t width_us)
{
    uint32_t longest = limit_allowance_us(line) * PORT_TICKS_PER_US;
    uint32_t elapsed = port_now() - rise[line];
    if (width_us < MIN_DELAY_US)
        width_us = MIN_DELAY_US;
    uint32_t width = fall[line] - rise[line];
    if (elapsed + MIN_DELAY_US * PORT_TICKS_PER_US <= longest) {
        width = elapsed + width_us * PORT_TICKS_PER_US;
        if (width > longest)
            width = longest;
    }
    if (!port_hold(line, duty, rise[line] + width))
        return false;
    fall[line] = rise[line] + width;
    limit_move(line, (width + PORT_TICKS_PER_US - 1) / PORT_TICKS_PER_US);
    return true;
}

static void go_on(const struct request *request, uint8_t line, uint8_t duty, uint32_t width_us)
{
    uint8_t reason = refusal_in_time(line, 0, width_us);
    if (reason) {
        refuse(request, reason);
    } else if (port_raise(line, duty, width_us * PORT_TICKS_PER_US, &rise[line])) {
        fall[line] = rise[line] + width_us * PORT_TICKS_PER_US;
        limit_begin(line, rise[line], width_us, 0, 1);
        answer(request, ANSWER_DONE, rise[line]);
    } else {
        refuse(request, REASON_DISARMED); /* the watchdog tripped a moment ago */
    }
}

static void order_on(const struct request *request, uint8_t line, uint8_t duty, uint32_t width_us)
{
    uint8_t bit = bit_of_line[line];
    bool on = port_high() & bit;
    if (!may_be_on(line, width_us))
        refuse(request, REASON_WIDTH);
    else if (port_training() & bit || (on && (request->type & 0xF0) == REQUEST_PULSE))
        refuse(request, REASON_BUSY);
    else if (on && extend(line, duty, width_us))
        answer(request, ANSWER_UNCHANGED, port_now());
    else
        go_on(request, line, duty, width_us);
}

static void order_level(const struct request *request, uint8_t line)
{
    uint8_t duty = request->data[0];
    if (!(LINES_WITH_LEVELS & bit_of_line[line]))
        refuse(request, REASON_LEVEL);
    else if (!duty)
        refuse(request, REASON_VALUE);
    else
        order_on(request, line, duty, read_number(request->data + 1, request->length - 1));
}

/* ---- trains ---- */

struct order {
    uint32_t delay_us, width_us, period_us;
    uint16_t count;
};

/* The edges per second of the trains that run. */
static uint16_t running_edges_hz(void)
{
    uint8_t training = port_training();
    uint16_t sum = 0;
    for (uint8_t line = 0; line < LINES; line++)
        if (training & bit_of_line[line])
            sum += edges_hz[line];
    return sum;
}

/* Order by order, so that no sum or product exceeds 32 bits. */
static uint8_t train_fault(uint8_t line, const struct order *train)
{
    if (!may_be_on(line, train->width_us))
        return REASON_WIDTH;
    if (!train->count || (train->delay_us && train->delay_us < MIN_DELAY_US)
        || train->delay_us > MAX_WIDTH_US)
        return REASON_VALUE;
    if (train->count == 1)
        return 0;
    if (train->period_us > MAX_WIDTH_US || train->period_us < train->width_us + MIN_WIDTH_US)
        return REASON_VALUE;
    if ((MAX_TRAIN_US - train->delay_us - train->width_us) / train->period_us
        < (uint32_t)(train->count - 1))
        return REASON_VALUE;
    return limit_gap_refusal(line, train->period_us - train->width_us);
}

static uint16_t edges_hz_of(const struct order *train)
{
    if (train->count == 1)
        return 0;
    uint32_t hz = (2000000 + train->period_us - 1) / train->period_us;
    return (uint16_t)hz;
}

static void begin_train(const struct request *request, uint8_t line, const struct order *train)
{
    const struct train ticks = {
        .delay = train->delay_us * PORT_TICKS_PER_US,
        .width = train->width_us * PORT_TICKS_PER_US,
        .gap = (train->period_us - train->width_us) * PORT_TICKS_PER_US,
        .count = train->count,
    };
    if (!port_train(line, &ticks, &rise[line])) {
        refuse(request, REASON_DISARMED); /* the watchdog tripped a moment ago */
        return;
    }
    edges_hz[line] = edges_hz_of(train);
    limit_begin(line, rise[line], train->width_us, train->period_us, train->count);
    answer(request, ANSWER_DONE, rise[line]);
}

static void order_train(const struct request *request, uint8_t line)
{
    const uint8_t *data = request->data;
    const struct order train = {read_number(data, 4), read_number(data + 4, 4),
                                read_number(data + 8, 4), (uint16_t)read_number(data + 12, 2)};
    uint8_t reason = train_fault(line, &train);
    if (!reason && (port_high() | port_training()) & bit_of_line[line])
        reason = REASON_BUSY;
    if (!reason && running_edges_hz() + edges_hz_of(&train) > MAX_TRAIN_EDGES_HZ)
        reason = REASON_RATE;
    if (!reason)
        reason = refusal_in_time(line, train.delay_us, train.width_us * train.count);
    if (reason)
        refuse(request, reason);
    else
        begin_train(request, line, &train);
}

/* ---- all of them ---- */

bool is_order(uint8_t type)
{
    return type >= REQUEST_OFF && type < REQUEST_TRAIN + 0x10;
}

static bool length_fits(uint8_t kind, uint8_t length)
{
    switch (kind) {
    case REQUEST_OFF:
        return length == 0;
    case REQUEST_LEVEL:
        return length >= 2 && length <= 5;
    case REQUEST_TRAIN:
        return length == 14;
    default:
        return length >= 1 && length <= 4;
    }
}

void order(const struct request *request, bool armed)
{
    uint8_t line = request->type & 0x0F;
    uint8_t kind = request->type & 0xF0;
    if (!length_fits(kind, request->length))
        refuse(request, REASON_LENGTH);
    else if (line >= LINES)
        refuse(request, REASON_LINE);
    else if (kind == REQUEST_OFF)
        order_off(request, line);
    else if (!armed)
        refuse(request, REASON_DISARMED);
    else if (!limit_longest_us(line))
        refuse(request, REASON_NO_LIMIT);
    else if (kind == REQUEST_LEVEL)
        order_level(request, line);
    else if (kind == REQUEST_TRAIN)
        order_train(request, line);
    else
        order_on(request, line, 0, read_number(request->data, request->length));
}
