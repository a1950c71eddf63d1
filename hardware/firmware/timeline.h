/* What is due when: the next edge of each line, and the end of the watchdog's patience.
 *
 * Times are ticks of a free-running 32-bit clock; they compare rightly as long as everything lies
 * within half its range. Not safe against interrupts: the target switches them off around it. */
#ifndef TIMELINE_H
#define TIMELINE_H

#include <stdint.h>

#include "protocol.h"

#define TIMELINE_GUARD LINES /* the watchdog; 0..LINES-1 are the lines */
#define TIMELINE_ITEMS (LINES + 1)

#define TIMELINE_SLOTS 16 /* a power of 2, so that indices wrap by masking */

struct timeline {
    uint8_t count;
    uint8_t first;                 /* slot of the earliest item; the others follow */
    uint8_t order[TIMELINE_SLOTS]; /* items, a ring */
    uint32_t at[TIMELINE_ITEMS];
};

static inline uint8_t timeline_first(const struct timeline *timeline)
{
    return timeline->order[timeline->first];
}

/* Enter an item that is not in. */
void timeline_add(struct timeline *timeline, uint8_t item, uint32_t at);

/* Take an item out; nothing happens if it is not in. */
void timeline_remove(struct timeline *timeline, uint8_t item);

/* Move an item, or enter it. */
static inline void timeline_set(struct timeline *timeline, uint8_t item, uint32_t at)
{
    timeline_remove(timeline, item);
    timeline_add(timeline, item, at);
}

/* Take the earliest item out. */
static inline void timeline_pop(struct timeline *timeline)
{
    timeline->first = (timeline->first + 1) & (TIMELINE_SLOTS - 1);
    timeline->count--;
}

#endif
