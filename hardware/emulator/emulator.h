/* What the parts of the emulator share: main.c (options, start, end), chip.c (the processor, its
 * lines, real time), serial.c (its serial port on a pty), inputs.c (what drives its pins). */
#ifndef EMULATOR_H
#define EMULATOR_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include <simavr/sim_avr.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

struct options {
    const char *firmware, *link, *edge_path, *wire_path;
    const char *level_path, *inputs_path, *input_log_path;
    uint64_t linger_ns; /* 0 = for ever */
    uint64_t end_ns;    /* of now_ns; 0 = never */
    bool reset_on_open, realtime;
    const char *boot_loader; /* NULL = none */
};

extern struct options options;
extern volatile sig_atomic_t stop_wanted, hang_wanted, unplug_wanted, reset_wanted;

/* ---- main.c ---- */

uint64_t now_ns(void); /* CLOCK_MONOTONIC */
void fail(const char *what); /* with the meaning of errno, and exit */

/* ---- bootloader.c ---- */

void bootloader_load(const char *path); /* into the chip, beside its firmware */

/* ---- chip.c ---- */

#define CLOCK_HZ 16000000u

extern avr_t *avr;

void chip_make(void);      /* with the firmware loaded */
void chip_start(void);     /* set emulated time running, now */
int chip_step(void);       /* returns libsimavr's state of the CPU */
void chip_reset_pin(void); /* as by the reset button */
void chip_hang(void);

/* ---- inputs.c ---- */

void inputs_open(void);
void inputs_close(void);
int inputs_fd(void);     /* to wait for; -1 if there is none */
void inputs_read(void);  /* obey what was written to it, if anything */
void inputs_reset(void); /* the chip was reset */

/* ---- serial.c ---- */

void serial_connect(void);         /* to the chip's UART */
const char *serial_open(void);     /* make the pty and its link; returns the end to open */
void serial_close(void);           /* remove the link */
void serial_unplug(void);          /* hang up for good; whoever has the pty open sees it gone */
bool serial_wait(uint64_t ns);     /* let at most that much pass, less if bytes or inputs come; true
                                      if there are bytes */
void serial_read(void);            /* take those bytes */
void serial_forget(void);          /* the chip was reset */
void serial_note(const char *what); /* write it into the wire log */
bool serial_take_opened(void);     /* whether the pty was opened since the last call */
bool serial_unused(uint64_t ns, uint64_t now); /* whether nobody had it open for that long */

#endif
