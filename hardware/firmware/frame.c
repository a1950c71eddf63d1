#include "frame.h"

#include <stdbool.h>

void frame_restart(struct frame_reader *reader)
{
    reader->length = 0;
    reader->escaped = 0;
    reader->spoilt = 0;
    reader->crc = (struct crc){0xFF, 0xFF};
}

static uint8_t frame_finish(struct frame_reader *reader)
{
    uint8_t length = reader->length;
    /* A payload has at least a type and a sequence number. */
    bool sound = length >= 4 && reader->crc.high == FRAME_RESIDUE >> 8
                 && reader->crc.low == (FRAME_RESIDUE & 0xFF) && !reader->escaped
                 && !reader->spoilt;
    bool empty = length == 0 && !reader->escaped && !reader->spoilt;
    frame_restart(reader);
    if (empty)
        return FRAME_PENDING;
    return sound ? (uint8_t)(length - 2) : FRAME_BAD;
}

uint8_t frame_take(struct frame_reader *reader, uint8_t byte)
{
    if (byte == FRAME_END)
        return frame_finish(reader);
    if (byte == FRAME_ESCAPE) {
        reader->spoilt |= reader->escaped;
        reader->escaped = 1;
        return FRAME_PENDING;
    }
    if (reader->escaped) {
        reader->escaped = 0;
        if (byte == FRAME_ESCAPED_END)
            byte = FRAME_END;
        else if (byte == FRAME_ESCAPED_ESCAPE)
            byte = FRAME_ESCAPE;
        else
            reader->spoilt = 1;
    }
    if (reader->length == sizeof reader->data) {
        reader->spoilt = 1;
        return FRAME_PENDING;
    }
    reader->data[reader->length++] = byte;
    crc_take(&reader->crc, byte);
    return FRAME_PENDING;
}

static void frame_put(uint8_t byte, void (*put)(uint8_t byte))
{
    if (byte == FRAME_END || byte == FRAME_ESCAPE) {
        put(FRAME_ESCAPE);
        byte = byte == FRAME_END ? FRAME_ESCAPED_END : FRAME_ESCAPED_ESCAPE;
    }
    put(byte);
}

void frame_write(const uint8_t *payload, uint8_t length, void (*put)(uint8_t byte))
{
    struct crc crc = {0xFF, 0xFF};
    for (uint8_t i = 0; i < length; i++) {
        crc_take(&crc, payload[i]);
        frame_put(payload[i], put);
    }
    frame_put((uint8_t)~crc.high, put);
    frame_put((uint8_t)~crc.low, put);
    put(FRAME_END);
}
