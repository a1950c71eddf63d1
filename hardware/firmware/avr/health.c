#include "health.h"

#include <avr/pgmspace.h>
#include <avr/wdt.h>

#include "../board.h"
#include "../frame.h"
#include "target.h"

/* The linker's: the end of the program, and the checksum that the build has found. */
extern const uint8_t __data_load_end, built_checksum;

/* Counted as 0 in the checksum. */
static const uint16_t stored PROGMEM = (uint16_t)&built_checksum;

static uint16_t flash_checksum(void)
{
    struct crc crc = {0xFF, 0xFF};
    uint16_t end = (uint16_t)&__data_load_end, own = (uint16_t)&stored;
    for (uint16_t address = 0; address != end; address++) {
        crc_take(&crc, address - own < 2 ? 0 : pgm_read_byte(address));
        if (!(address & 0x3F)) { /* takes some 50 ms in all: the inputs do not wait for that */
            wdt_reset();
            board_poll();
        }
    }
    return (uint16_t)crc.high << 8 | crc.low;
}

static uint16_t free_stack(void)
{
    const uint8_t *byte = &_end;
    while (byte <= &__stack && *byte == UNTOUCHED)
        byte++;
    return (uint16_t)(byte - &_end);
}

static bool clock_runs(void)
{
    uint32_t before = port_now();
    return port_now() != before;
}

void port_examine(struct health *health)
{
    *health = (struct health){flash_checksum(), pgm_read_word(&stored), free_stack(), clock_runs()};
}
