/* The board on a PC, for tests: its clock stands until it is told to advance. Also the shortest
 * example of what a new kind of board has to provide. */
#include "../board.h"

#include <string.h>

#include "../lines.h"

#define TICK_US 4000 /* how often board_tick is called */
#define EDGES 256 /* of inputs, not yet taken */
#define MOVES 65536

const char port_name[] = FIRMWARE_NAME;

static uint64_t now, next_tick; /* ticks */
static struct lines lines;
static uint8_t duties[LINES];
static bool shown_armed;

/* What the lines did. */
static struct move {
    uint64_t tick;
    uint8_t high; /* from then on */
} moves[MOVES];
static uint32_t moved;

static struct {
    uint8_t mode;
    bool well, stopped;
    uint32_t tick;
} stop;

static uint8_t input_modes[INPUTS], inputs;
static struct edge edges[EDGES];
static uint32_t edges_in, edges_out;

static struct health health;
static uint8_t held_high; /* lines whose pins read high whatever is driven */

static uint8_t sent[1 << 16];
static uint32_t sent_count;

static void note_move(void)
{
    uint8_t before = moved ? moves[moved - 1].high : 0;
    if (lines.high != before && moved < MOVES)
        moves[moved++] = (struct move){now, lines.high};
}

/* ---- for the tests ---- */

void host_reset(uint8_t cause)
{
    now = 0;
    next_tick = TICK_US * PORT_TICKS_PER_US;
    lines_release(&lines);
    memset(&stop, 0, sizeof stop);
    memset(input_modes, 0, sizeof input_modes);
    stop.well = true;
    inputs = 0;
    edges_in = edges_out = 0;
    health = (struct health){.free_stack = 500, .clock_runs = true};
    held_high = 0;
    moved = 0;
    sent_count = 0;
    board_start(cause);
}

void host_take(const uint8_t *bytes, uint32_t count)
{
    while (count--)
        board_take(*bytes++);
}

static void advance_to(uint64_t until)
{
    while (lines.timeline.first) {
        uint8_t item = lines.timeline.first->item;
        int32_t ahead = (int32_t)(lines.timeline.first->at - (uint32_t)now);
        if (ahead > 0 && now + (uint32_t)ahead > until)
            break;
        now += ahead > 0 ? (uint32_t)ahead : 0;
        if (lines_take_first(&lines))
            lines_follow(&lines, item);
        note_move();
    }
    now = until;
}

/* Let time pass; what falls due happens at its very tick. */
void host_advance(uint32_t ticks)
{
    uint64_t until = now + ticks;
    for (; next_tick <= until; next_tick += TICK_US * PORT_TICKS_PER_US) {
        advance_to(next_tick);
        board_poll();
        board_tick();
    }
    advance_to(until);
    board_poll();
}

uint8_t host_high(void)
{
    return lines.high;
}

uint8_t host_duty(uint8_t line)
{
    return lines.high >> line & 1 ? duties[line] : 0;
}

bool host_shows_armed(void)
{
    return shown_armed;
}

/* Drive an input. */
void host_input(uint8_t input, uint8_t level)
{
    if ((inputs >> input & 1) == level)
        return;
    inputs ^= (uint8_t)(1u << input);
    if (input_modes[input] != INPUT_OFF && edges_in - edges_out < EDGES)
        edges[edges_in++ % EDGES] = (struct edge){port_now(), input, level};
}

/* Drive the stop input. */
void host_stop(bool well)
{
    stop.well = well;
    if (well || stop.mode == STOP_MODE_OFF || !lines.guarded)
        return;
    lines_release(&lines);
    note_move();
    stop.stopped = true;
    stop.tick = port_now();
}

void host_set_health(uint16_t checksum, uint16_t free_stack, bool clock_runs, uint8_t held)
{
    health = (struct health){checksum, 0, free_stack, clock_runs};
    held_high = held;
}

/* What all lines were from their number-th move on; its tick, or UINT64_MAX if there is none. */
uint64_t host_move(uint32_t number, uint8_t *high)
{
    if (number >= moved)
        return UINT64_MAX;
    *high = moves[number].high;
    return moves[number].tick;
}

/* Hand over, and forget, what the board has sent. */
uint32_t host_sent(uint8_t *bytes)
{
    uint32_t count = sent_count;
    memcpy(bytes, sent, count);
    sent_count = 0;
    return count;
}

/* ---- what board.h asks for ---- */

uint32_t port_now(void)
{
    return (uint32_t)now;
}

uint32_t port_us(uint32_t tick)
{
    int32_t ahead = (int32_t)(tick - (uint32_t)now);
    return (uint32_t)((now + (uint64_t)(int64_t)ahead) / PORT_TICKS_PER_US);
}

bool port_raise(uint8_t line, uint8_t duty, uint32_t width, uint32_t *rise)
{
    if (!lines.guarded)
        return false;
    *rise = port_now();
    lines.high |= bit_of_line[line];
    note_move();
    duties[line] = duty;
    timeline_set(&lines.timeline, line, *rise + width);
    return true;
}

bool port_hold(uint8_t line, uint8_t duty, uint32_t end)
{
    if (!(lines.high & bit_of_line[line]))
        return false;
    duties[line] = duty;
    timeline_set(&lines.timeline, line, end);
    return true;
}

bool port_train(uint8_t line, const struct train *train, uint32_t *rise)
{
    if (!lines.guarded)
        return false;
    *rise = port_now() + train->delay;
    duties[line] = 0;
    lines.trains[line] = *train;
    lines.training |= bit_of_line[line];
    timeline_add(&lines.timeline, line, *rise);
    advance_to(now); /* the first edge, if it is due */
    return true;
}

uint8_t port_drop(uint8_t dropped, uint32_t *tick)
{
    uint8_t ended = (lines.high | lines.training) & dropped;
    *tick = port_now();
    lines.high &= (uint8_t)~dropped;
    lines.training &= (uint8_t)~dropped;
    note_move();
    for (uint8_t line = 0; line < LINES; line++)
        if (ended & bit_of_line[line])
            timeline_remove(&lines.timeline, line);
    return ended;
}

uint8_t port_high(void)
{
    return lines.high;
}

uint8_t port_training(void)
{
    return lines.training;
}

uint8_t port_levels(void)
{
    return lines.high | held_high;
}

bool port_guard_start(uint32_t end)
{
    if (port_stop_state() == STOP_STATE_STOP)
        return false;
    stop.stopped = false;
    lines.guarded = true;
    timeline_set(&lines.timeline, TIMELINE_GUARD, end);
    return true;
}

bool port_guard_move(uint32_t end)
{
    if (lines.guarded)
        timeline_set(&lines.timeline, TIMELINE_GUARD, end);
    return lines.guarded;
}

void port_guard_stop(void)
{
    lines.guarded = false;
    timeline_remove(&lines.timeline, TIMELINE_GUARD);
}

bool port_guard_runs(void)
{
    return lines.guarded;
}

void port_set_stop(uint8_t mode)
{
    stop.mode = mode;
}

uint8_t port_stop_state(void)
{
    if (stop.mode == STOP_MODE_OFF)
        return STOP_STATE_UNUSED;
    return stop.well ? STOP_STATE_WELL : STOP_STATE_STOP;
}

bool port_was_stopped(uint32_t *tick)
{
    if (stop.stopped)
        *tick = stop.tick;
    return stop.stopped;
}

void port_set_input(uint8_t input, uint8_t mode, bool pull_up)
{
    (void)pull_up; /* the tests drive every input */
    input_modes[input] = mode;
}

uint8_t port_inputs(void)
{
    return inputs;
}

bool port_take_edge(struct edge *edge)
{
    if (edges_out == edges_in)
        return false;
    *edge = edges[edges_out++ % EDGES];
    return true;
}

void port_put(uint8_t byte)
{
    if (sent_count < sizeof sent)
        sent[sent_count++] = byte;
}

bool port_has_room(uint8_t bytes)
{
    return sent_count + bytes <= sizeof sent;
}

void port_show_armed(bool armed)
{
    shown_armed = armed;
}

void port_examine(struct health *examined)
{
    *examined = health;
}
