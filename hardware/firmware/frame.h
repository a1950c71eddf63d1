/* Framing and CRC of protocol.h, byte by byte. */
#ifndef FRAME_H
#define FRAME_H

#include <stdint.h>

#include "protocol.h"

enum { FRAME_PENDING = 0, FRAME_BAD = 0xFF };

struct crc {
    uint8_t high, low;
};

struct frame_reader {
    uint8_t data[FRAME_MAX_REQUEST + 2];
    uint8_t length;
    uint8_t escaped;
    uint8_t spoilt;
    struct crc crc;
};

/* Forget what was received. */
void frame_restart(struct frame_reader *reader);

/* Take one byte. Returns FRAME_PENDING, FRAME_BAD (a frame ended that is to be ignored), or the
 * length of a sound payload in reader->data, which stays until the next call. */
uint8_t frame_take(struct frame_reader *reader, uint8_t byte);

/* Write a frame of at most FRAME_MAX_ANSWER bytes of payload, byte by byte, through `put`. */
void frame_write(const uint8_t *payload, uint8_t length, void (*put)(uint8_t byte));

#endif
