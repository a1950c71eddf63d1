/* What is due when: the end of each line's on-time, and of the watchdog's patience.
 *
 * Times are ticks of a free-running 32-bit clock; they compare rightly as long as everything lies
 * within half its range. Not safe against interrupts: the target switches them off around it. */
#ifndef TIMELINE_H
#define TIMELINE_H

#include <stdint.h>

#include "protocol.h"

#define TIMELINE_GUARD LINES /* the watchdog; 0..LINES-1 are the lines */
#define TIMELINE_ITEMS (LINES + 1)

struct timeline {
    uint8_t count;
    uint8_t order[TIMELINE_ITEMS]; /* earliest first */
    uint32_t at[TIMELINE_ITEMS];
};

/* Enter an item, or move it. */
void timeline_set(struct timeline *timeline, uint8_t item, uint32_t at);

/* Take an item out; nothing happens if it is not in. */
void timeline_remove(struct timeline *timeline, uint8_t item);

/* Take the earliest item out. */
void timeline_pop(struct timeline *timeline);

#endif
