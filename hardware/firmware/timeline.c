#include "timeline.h"

static void timeline_close_gap(struct timeline *timeline, uint8_t place)
{
    timeline->count--;
    for (; place < timeline->count; place++)
        timeline->order[place] = timeline->order[place + 1];
}

void timeline_remove(struct timeline *timeline, uint8_t item)
{
    for (uint8_t place = 0; place < timeline->count; place++) {
        if (timeline->order[place] == item) {
            timeline_close_gap(timeline, place);
            return;
        }
    }
}

void timeline_pop(struct timeline *timeline)
{
    timeline_close_gap(timeline, 0);
}

void timeline_set(struct timeline *timeline, uint8_t item, uint32_t at)
{
    timeline_remove(timeline, item);
    uint8_t place = timeline->count++;
    for (; place > 0; place--) {
        uint8_t before = timeline->order[place - 1];
        if ((int32_t)(timeline->at[before] - at) <= 0)
            break;
        timeline->order[place] = before;
    }
    timeline->order[place] = item;
    timeline->at[item] = at;
}
