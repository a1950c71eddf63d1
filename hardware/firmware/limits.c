#include "limits.h"

#include <string.h>

#include "board.h"

#define QUARTERS 5 /* four make a window; the newest is not complete */

/* `count` on-times of `width_us`, their beginnings `period_us` apart. */
struct use {
    uint32_t rise_us, width_us, period_us;
    uint32_t end_us; /* planned; rounded up, the rise down */
    uint16_t count;
};

static struct line {
    struct limit limit;
    struct use use;
    bool runs;               /* the use */
    bool rests;              /* since fall_us, for the refractory time */
    uint32_t fall_us;        /* rounded up */
    uint32_t window_us;      /* when its newest quarter began */
    uint32_t quarter_us;     /* its length */
    uint32_t part_us[QUARTERS]; /* on-time that ended in it, newest first */
    uint32_t charged_us;     /* their sum */
} lines[LINES];

uint8_t limits_on_time;
static uint8_t next_line;

void limits_restart(void)
{
    memset(lines, 0, sizeof lines);
    limits_on_time = 0;
    next_line = 0;
}

/* ---- charges ---- */

/* Let the window move on; what is older than it is forgotten. */
static inline void move_window(struct line *line, uint32_t now_us)
{
    if (!line->limit.window_us)
        return;
    uint8_t moved = 0;
    while ((int32_t)(now_us - line->window_us) >= (int32_t)line->quarter_us) {
        if (++moved > QUARTERS) { /* all is forgotten by now */
            line->window_us = now_us;
            return;
        }
        line->charged_us -= line->part_us[QUARTERS - 1];
        memmove(line->part_us + 1, line->part_us, sizeof line->part_us - sizeof *line->part_us);
        line->part_us[0] = 0;
        line->window_us += line->quarter_us;
    }
}

static void charge(struct line *line, uint32_t on_us)
{
    line->part_us[0] += on_us;
    line->charged_us += on_us;
}

/* ---- uses ---- */

/* Cut a use to the on-times that have begun by a time. */
static void cut(struct use *use, uint32_t until_us)
{
    int32_t elapsed_us = (int32_t)(until_us - use->rise_us);
    if (elapsed_us < 0) {
        use->count = 0;
    } else if (use->count > 1) {
        uint32_t whole = (uint32_t)elapsed_us / use->period_us;
        if (whole < use->count) {
            use->end_us -= (use->count - 1 - whole) * use->period_us;
            use->count = (uint16_t)whole + 1;
        }
    }
}

/* Enter the use that ran, ended as planned or cut at `until_us`, into the books. */
static void close(struct line *line, uint32_t until_us)
{
    struct use *use = &line->use;
    line->runs = false;
    if ((int32_t)(use->end_us - until_us) > 0)
        cut(use, until_us);
    if (!use->count)
        return;
    uint32_t on_us = use->count * use->width_us;
    if ((int32_t)(use->end_us - until_us) > 0) {
        uint32_t unused_us = use->end_us - until_us;
        on_us -= unused_us < use->width_us ? unused_us : use->width_us;
        use->end_us = until_us;
    }
    line->fall_us = use->end_us;
    line->rests = true;
    if (line->limit.dose_us) {
        move_window(line, line->fall_us);
        charge(line, on_us);
    }
}

/* How long the line has been low; its fall was rounded up, the present down. */
static uint32_t low_us(const struct line *line, uint32_t now_us)
{
    return now_us == line->fall_us - 1 ? 0 : now_us - line->fall_us;
}

static void settle(struct line *line, uint32_t now_us)
{
    if (line->runs && (int32_t)(now_us - line->use.end_us) >= 0)
        close(line, now_us);
    if (line->rests && low_us(line, now_us) >= line->limit.refractory_us)
        line->rests = false; /* noted before the clock could wrap */
    move_window(line, now_us);
}

void limits_tick(void)
{
    if (limits_on_time & bit_of_line[next_line])
        settle(&lines[next_line], port_us(port_now()));
    next_line = (uint8_t)(next_line + 1) % LINES;
}

static uint32_t rounded_up_us(uint32_t tick)
{
    return port_us(tick + PORT_TICKS_PER_US - 1);
}

void limit_begin(uint8_t number, uint32_t tick, uint32_t width_us, uint32_t period_us,
                 uint16_t count)
{
    if (!(limits_on_time & bit_of_line[number]))
        return;
    struct line *line = &lines[number];
    uint32_t length_us = count > 1 ? width_us + (uint32_t)(count - 1) * period_us : width_us;
    line->use = (struct use){port_us(tick), width_us, period_us, rounded_up_us(tick) + length_us,
                             count};
    line->runs = true;
}

void limit_move(uint8_t number, uint32_t width_us)
{
    struct use *use = &lines[number].use;
    use->end_us += width_us - use->width_us;
    use->width_us = width_us;
}

void limits_drop(uint8_t dropped, uint32_t tick)
{
    uint32_t until_us = rounded_up_us(tick);
    for (uint8_t number = 0; number < LINES; number++)
        if (dropped & bit_of_line[number] && lines[number].runs)
            close(&lines[number], until_us);
}

/* ---- limits ---- */

static bool is_sound(const struct limit *limit)
{
    if (limit->longest_us > MAX_WIDTH_US || (limit->longest_us && limit->longest_us < MIN_WIDTH_US))
        return false;
    if (limit->refractory_us > MAX_SPAN_US || limit->window_us > MAX_SPAN_US)
        return false;
    if (limit->dose_us)
        return limit->dose_us >= MIN_WIDTH_US
               && (!limit->window_us || limit->dose_us <= limit->window_us);
    return !limit->window_us;
}

uint8_t limit_set(uint8_t number, const struct limit *limit)
{
    if (number >= LINES)
        return REASON_LINE;
    if (!is_sound(limit))
        return REASON_VALUE;
    struct line *line = &lines[number];
    if (!memcmp(&line->limit, limit, sizeof *limit))
        return 0;
    uint32_t now_us = port_us(port_now());
    settle(line, now_us);
    uint32_t charged_us = limit->window_us ? line->charged_us : 0;
    memset(line->part_us, 0, sizeof line->part_us);
    line->charged_us = 0;
    charge(line, charged_us);
    line->window_us = now_us;
    line->quarter_us = limit->window_us / 4 + (limit->window_us % 4 != 0);
    line->limit = *limit;
    if (limit->refractory_us || limit->dose_us) {
        limits_on_time |= bit_of_line[number];
    } else {
        limits_on_time &= (uint8_t)~bit_of_line[number];
        line->runs = line->rests = false;
    }
    return 0;
}

uint32_t limit_longest_us(uint8_t line)
{
    return lines[line].limit.longest_us;
}

bool limits_usable(void)
{
    uint8_t usable = 0;
    for (uint8_t line = 0; line < LINES; line++)
        usable |= lines[line].limit.longest_us != 0;
    return usable;
}

static uint32_t dose_left_us(const struct line *line)
{
    if (!line->limit.dose_us)
        return UINT32_MAX;
    return line->charged_us < line->limit.dose_us ? line->limit.dose_us - line->charged_us : 0;
}

uint8_t limit_refusal(uint8_t number, uint32_t delay_us, uint32_t on_us)
{
    struct line *line = &lines[number];
    uint32_t now_us = port_us(port_now());
    settle(line, now_us);
    if (line->runs) /* and is low, so it ends in this very microsecond */
        close(line, now_us + 1);
    if (line->rests && low_us(line, now_us) + delay_us < line->limit.refractory_us)
        return REASON_REFRACTORY;
    if (on_us > dose_left_us(line))
        return REASON_DOSE;
    return 0;
}

uint8_t limit_gap_refusal(uint8_t line, uint32_t gap_us)
{
    return gap_us < lines[line].limit.refractory_us ? REASON_REFRACTORY : 0;
}

uint32_t limit_allowance_us(uint8_t number)
{
    uint32_t longest_us = lines[number].limit.longest_us, left_us = dose_left_us(&lines[number]);
    return left_us < longest_us ? left_us : longest_us;
}
