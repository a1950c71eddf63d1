/* The board on a PC, for tests: its clock stands until it is told to advance. Also the shortest
 * example of what a new kind of board has to provide. */
#include "../board.h"

#include <string.h>

#include "../timeline.h"

const char port_name[] = FIRMWARE_NAME;

static uint64_t now; /* ticks */
static struct timeline timeline;
static uint8_t high;
static bool guarded, shown_armed;
static uint8_t sent[1 << 16];
static uint32_t sent_count;

/* ---- for the tests ---- */

void host_reset(uint8_t cause)
{
    now = 0;
    memset(&timeline, 0, sizeof timeline);
    high = 0;
    guarded = false;
    sent_count = 0;
    board_start(cause);
}

void host_take(const uint8_t *bytes, uint32_t count)
{
    while (count--)
        board_take(*bytes++);
}

/* Let time pass; what falls due happens at its very tick. */
void host_advance(uint32_t ticks)
{
    uint64_t until = now + ticks;
    while (timeline.count) {
        uint8_t item = timeline_first(&timeline);
        int32_t ahead = (int32_t)(timeline.at[item] - (uint32_t)now);
        if (ahead > 0 && now + (uint32_t)ahead > until)
            break;
        now += ahead > 0 ? (uint32_t)ahead : 0;
        timeline_pop(&timeline);
        if (item == TIMELINE_GUARD) {
            high = 0;
            timeline.count = 0;
            guarded = false;
        } else {
            high &= ~(1u << item);
        }
    }
    now = until;
    board_poll();
}

uint8_t host_high(void)
{
    return high;
}

bool host_shows_armed(void)
{
    return shown_armed;
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
    return (uint32_t)((now - (uint32_t)((uint32_t)now - tick)) / PORT_TICKS_PER_US);
}

bool port_raise(uint8_t line, uint32_t width, uint32_t *rise)
{
    if (!guarded)
        return false;
    *rise = port_now();
    high |= (uint8_t)(1u << line);
    timeline_set(&timeline, line, *rise + width);
    return true;
}

bool port_hold(uint8_t line, uint32_t end)
{
    if (!(high & 1u << line))
        return false;
    timeline_set(&timeline, line, end);
    return true;
}

uint8_t port_drop(uint8_t lines, uint32_t *tick)
{
    uint8_t moved = high & lines;
    *tick = port_now();
    high &= (uint8_t)~lines;
    for (uint8_t line = 0; line < LINES; line++)
        if (moved & 1u << line)
            timeline_remove(&timeline, line);
    return moved;
}

uint8_t port_high(void)
{
    return high;
}

uint8_t port_levels(void)
{
    return high;
}

void port_guard_start(uint32_t end)
{
    guarded = true;
    timeline_set(&timeline, TIMELINE_GUARD, end);
}

bool port_guard_move(uint32_t end)
{
    if (guarded)
        timeline_set(&timeline, TIMELINE_GUARD, end);
    return guarded;
}

void port_guard_stop(void)
{
    guarded = false;
    timeline_remove(&timeline, TIMELINE_GUARD);
}

bool port_guard_runs(void)
{
    return guarded;
}

void port_put(uint8_t byte)
{
    if (sent_count < sizeof sent)
        sent[sent_count++] = byte;
}

void port_show_armed(bool armed)
{
    shown_armed = armed;
}
