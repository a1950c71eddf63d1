#include "timeline.h"

static inline uint8_t slot_after(uint8_t slot)
{
    return (slot + 1) & (TIMELINE_SLOTS - 1);
}

static inline uint8_t slot_before(uint8_t slot)
{
    return (slot - 1) & (TIMELINE_SLOTS - 1);
}

void timeline_remove(struct timeline *timeline, uint8_t item)
{
    uint8_t slot = timeline->first;
    uint8_t left = timeline->count;
    for (; left && timeline->order[slot] != item; left--)
        slot = slot_after(slot);
    if (!left)
        return;
    timeline->count--;
    for (; --left; slot = slot_after(slot))
        timeline->order[slot] = timeline->order[slot_after(slot)];
}

void timeline_add(struct timeline *timeline, uint8_t item, uint32_t at)
{
    uint8_t slot = (timeline->first + timeline->count) & (TIMELINE_SLOTS - 1);
    for (uint8_t earlier = timeline->count; earlier; earlier--) {
        uint8_t before = timeline->order[slot_before(slot)];
        if ((int32_t)(timeline->at[before] - at) <= 0)
            break;
        timeline->order[slot] = before;
        slot = slot_before(slot);
    }
    timeline->order[slot] = item;
    timeline->at[item] = at;
    timeline->count++;
}
