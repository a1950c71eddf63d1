#include "limits.h"

#include <string.h>

#include "board.h"

#define QUARTERS 5 /* four make a window; the newest is not complete */

static struct line {
    struct limit limit;
    struct use use;
    bool runs;    /* the use */
    bool late;    /* it began up to 1 us after rise_us */
    bool rests;   /* since fall_us, for the refractory time */
    uint32_t fall_us;
    uint32_t quarter_us;         /* length of a quarter of the window */
    uint32_t newest_us;          /* when the newest quarter began */
    uint32_t charged_us[QUARTERS]; /* newest first */
} lines[LINES];

static uint8_t next_line;

void limits_restart(void)
{
    memset(lines, 0, sizeof lines);
    next_line = 0;
}

/* ---- charges ---- */

static uint32_t charged_us(const struct line *line)
{
    uint32_t sum = 0;
    for (uint8_t quarter = 0; quarter < QUARTERS; quarter++)
        sum += line->charged_us[quarter];
    return sum;
}

/* Let the window move on; what is older than it is forgotten. */
static void move_window(struct line *line, uint32_t now_us)
{
    if (!line->limit.window_us || (int32_t)(now_us - line->newest_us) < 0)
        return;
    uint8_t moved = 0;
    while (now_us - line->newest_us >= line->quarter_us) {
        if (++moved > QUARTERS) { /* all is forgotten by now */
            line->newest_us = now_us;
            return;
        }
        memmove(line->charged_us + 1, line->charged_us,
                sizeof line->charged_us - sizeof *line->charged_us);
        line->charged_us[0] = 0;
        line->newest_us += line->quarter_us;
    }
}

/* ---- uses ---- */

static uint32_t end_us(const struct use *use)
{
    return use->rise_us + use->width_us + (uint32_t)(use->count - 1) * use->period_us;
}

/* Cut a use to what was done of it until a time. */
static void cut(struct use *use, uint32_t until_us)
{
    int32_t elapsed_us = (int32_t)(until_us - use->rise_us);
    if (elapsed_us <= 0) {
        use->count = 0;
        return;
    }
    uint16_t begun = 1;
    if (use->count > 1) {
        uint32_t whole = (uint32_t)elapsed_us / use->period_us;
        begun = whole < use->count ? (uint16_t)whole + 1 : use->count;
    }
    use->count = begun;
}

/* Enter the use that ran, ended by itself or cut at `until_us`, into the books. */
static void close(struct line *line, uint32_t until_us)
{
    struct use *use = &line->use;
    uint32_t planned_us = end_us(use);
    uint32_t unused_us = 0;
    if ((int32_t)(planned_us - until_us) > 0) {
        cut(use, until_us);
        int32_t cut_off_us = (int32_t)(end_us(use) - until_us);
        unused_us = cut_off_us > 0 ? (uint32_t)cut_off_us : 0;
    }
    line->runs = false;
    if (!use->count)
        return;
    line->fall_us = end_us(use) - unused_us + (unused_us ? 0 : line->late);
    line->rests = true;
    if (line->limit.dose_us) {
        move_window(line, line->fall_us);
        line->charged_us[0] += use->count * use->width_us - unused_us;
    }
}

/* How long the line has been low; the fall was rounded up, the present down. */
static uint32_t low_us(const struct line *line, uint32_t now_us)
{
    return now_us == line->fall_us - 1 ? 0 : now_us - line->fall_us;
}

static void settle(struct line *line, uint32_t now_us)
{
    if (line->runs && (int32_t)(now_us - end_us(&line->use) - line->late) >= 0)
        close(line, now_us);
    if (line->rests && low_us(line, now_us) >= line->limit.refractory_us)
        line->rests = false; /* noted before the clock could wrap */
    move_window(line, now_us);
}

void limits_tick(void)
{
    settle(&lines[next_line], port_us(port_now()));
    next_line = (uint8_t)(next_line + 1) % LINES;
}

void limit_begin(uint8_t number, uint32_t tick, uint32_t width_us, uint32_t period_us,
                 uint16_t count)
{
    struct line *line = &lines[number];
    line->use = (struct use){port_us(tick), width_us, period_us, count};
    line->late = tick % PORT_TICKS_PER_US != 0;
    line->runs = true;
}

void limit_move(uint8_t line, uint32_t width_us)
{
    lines[line].use.width_us = width_us;
}

void limits_drop(uint8_t dropped, uint32_t tick)
{
    uint32_t until_us = port_us(tick + PORT_TICKS_PER_US - 1);
    for (uint8_t number = 0; number < LINES; number++)
        if (dropped >> number & 1 && lines[number].runs)
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
    uint32_t charged = limit->window_us ? charged_us(line) : 0;
    memset(line->charged_us, 0, sizeof line->charged_us);
    line->charged_us[0] = charged;
    line->newest_us = now_us;
    line->quarter_us = limit->window_us / 4 + (limit->window_us % 4 != 0);
    line->limit = *limit;
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

uint8_t limit_refusal(uint8_t number, uint32_t delay_us, uint32_t on_us)
{
    struct line *line = &lines[number];
    if (!line->limit.refractory_us && !line->limit.dose_us)
        return 0; /* quickly, for lines without */
    uint32_t now_us = port_us(port_now());
    settle(line, now_us);
    if (line->runs) /* and is low, so it ends in this very microsecond */
        close(line, now_us + 1);
    if (line->rests && low_us(line, now_us) + delay_us < line->limit.refractory_us)
        return REASON_REFRACTORY;
    if (line->limit.dose_us && on_us > limit_allowance_us(number))
        return REASON_DOSE;
    return 0;
}

uint8_t limit_gap_refusal(uint8_t line, uint32_t gap_us)
{
    return gap_us < lines[line].limit.refractory_us ? REASON_REFRACTORY : 0;
}

uint32_t limit_allowance_us(uint8_t number)
{
    const struct line *line = &lines[number];
    uint32_t allowed_us = line->limit.longest_us;
    if (line->limit.dose_us) {
        uint32_t charged = charged_us(line);
        uint32_t left_us = charged < line->limit.dose_us ? line->limit.dose_us - charged : 0;
        if (left_us < allowed_us)
            allowed_us = left_us;
    }
    return allowed_us;
}
