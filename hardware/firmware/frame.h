/* Framing and CRC of protocol.h, byte by byte. */
#ifndef FRAME_H
#define FRAME_H

#include <stdint.h>

#include "protocol.h"

enum { FRAME_PENDING = 0, FRAME_BAD = 0xFF };

struct crc {
    uint8_t high, low;
};

/* The polynomial 0x1021 in shifts of bytes: no table, and quick on a chip that shifts by one. */
static inline void crc_take(struct crc *crc, uint8_t byte)
{
    uint8_t x = crc->high ^ byte;
    x ^= x >> 4;
    crc->high = (uint8_t)(crc->low ^ (x << 4) ^ (x >> 3));
    crc->low = (uint8_t)(x ^ (x << 5));
}

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
