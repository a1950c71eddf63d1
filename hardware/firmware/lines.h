/* Which lines are on, and what follows: the ends of on-times, the edges of trains, the watchdog.
 *
 * What a target keeps of its lines, and the step that it makes at each edge. Not safe against
 * interrupts: the target switches them off around it. */
#ifndef LINES_H
#define LINES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "board.h"
#include "timeline.h"

struct lines {
    struct timeline timeline;
    struct train trains[LINES]; /* `count` pulses have not ended yet */
    uint8_t high;               /* lines that are on */
    uint8_t training;           /* lines that have a train, on or between its pulses */
    bool guarded;               /* the watchdog runs: lines may rise */
};

/* All lines off, nothing follows. */
static inline void lines_release(struct lines *lines)
{
    lines->timeline.count = 0;
    lines->high = 0;
    lines->training = 0;
    lines->guarded = false;
}

/* The edge of a train that is due at `at`, and when the next one is. */
static inline void lines_continue_train(struct lines *lines, uint8_t line, uint32_t at)
{
    struct train *train = &lines->trains[line];
    uint8_t bit = bit_of_line[line];
    if (!(lines->high & bit)) {
        lines->high |= bit;
        timeline_add(&lines->timeline, line, at + train->width);
        return;
    }
    lines->high &= (uint8_t)~bit;
    if (--train->count)
        timeline_add(&lines->timeline, line, at + train->gap);
    else
        lines->training &= (uint8_t)~bit;
}

/* Take the earliest item out, with its effect on the lines. */
static inline void lines_take_first(struct lines *lines)
{
    uint8_t item = timeline_first(&lines->timeline);
    uint32_t at = lines->timeline.at[item];
    timeline_pop(&lines->timeline);
    if (item == TIMELINE_GUARD)
        lines_release(lines);
    else if (lines->training & bit_of_line[item])
        lines_continue_train(lines, item, at);
    else
        lines->high &= (uint8_t)~bit_of_line[item];
}

#endif
