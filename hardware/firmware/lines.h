/* Which lines are on, and what follows: the ends of on-times, the edges of trains, the watchdog.
 *
 * What a target keeps of its lines, and the step that it makes at each edge. Not safe against
 * interrupts: the target switches them off around it. */
#ifndef LINES_H
#define LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
    lines->timeline.first = NULL;
    lines->high = 0;
    lines->training = 0;
    lines->guarded = false;
}

/* The edge of a line. In a train another one follows. */
static inline bool lines_turn(struct lines *lines, uint8_t line)
{
    uint8_t bit = bit_of_line[line];
    bool falls = lines->high & bit;
    if (!(lines->training & bit)) {
        lines->high &= (uint8_t)~bit;
        return false;
    }
    lines->high ^= bit;
    if (falls && --lines->trains[line].count == 0)
        lines->training &= (uint8_t)~bit;
    return lines->training & bit;
}

/* Take the earliest item out, with its effect on the lines. True if lines_follow is to be called
 * after that. */
static inline bool lines_take_first(struct lines *lines)
{
    uint8_t item = lines->timeline.first->item;
    timeline_pop(&lines->timeline);
    if (item == TIMELINE_GUARD) {
        lines_release(lines);
        return false;
    }
    return lines_turn(lines, item);
}

/* Enter the next edge of the train of a line that has just turned. */
static inline void lines_follow(struct lines *lines, uint8_t line)
{
    const struct train *train = &lines->trains[line];
    uint32_t last = lines->timeline.items[line].at;
    timeline_add(&lines->timeline, line,
                 last + (lines->high & bit_of_line[line] ? train->width : train->gap));
}

#endif
