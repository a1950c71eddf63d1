/* What drives the chip's pins from outside, as told through a FIFO, line by line:
 *
 *   PIN 0 | 1        drive it low or high; a line of the board, too: its pin then reads so
 *   PIN z            leave it open: it follows its pull-up
 *   PIN ~COUNT/CYCLES  drive it to the other level, COUNT times, every so many cycles
 *
 * with " @CYCLES" behind it: so long after the line before took effect, at once otherwise. PIN is
 * D2, D8, A0 or the like. What is wrong is said on standard error and left out. */
#define _GNU_SOURCE
#include "emulator.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <simavr/avr_extint.h>
#include <simavr/avr_ioport.h>
#include <simavr/sim_core.h>

#define PINS 20 /* D0..D13, A0..A5 */
#define PLANNED 1024

static const char ports[] = "BCD";

static struct pin {
    bool driven;
    uint8_t level;
    uint32_t toggles, every; /* still to be done, and how often */
} pins[PINS];

static struct change {
    uint32_t after;
    uint8_t pin;
    char what; /* '0', '1', 'z' or '~' */
    uint32_t toggles, every;
} planned[PLANNED];
static unsigned planned_in, planned_out;

static FILE *log_file;
static int fifo = -1;
static char text[4096];
static size_t text_length;

static struct {
    avr_io_read_t read;
    void *param;
} library_read[sizeof ports];

/* ---- pins ---- */

static char port_of(int pin)
{
    return pin < 8 ? 'D' : pin < 14 ? 'B' : 'C';
}

static int bit_of(int pin)
{
    return pin < 8 ? pin : pin < 14 ? pin - 8 : pin - 14;
}

static avr_io_addr_t register_of(char port)
{
    return (avr_io_addr_t)(0x23 + 3 * (port - 'B')); /* PINB, PINC, PIND */
}

static uint8_t driven_bits(char port, uint8_t *levels)
{
    uint8_t driven = 0;
    *levels = 0;
    for (int pin = 0; pin < PINS; pin++) {
        if (!pins[pin].driven || port_of(pin) != port)
            continue;
        driven |= (uint8_t)(1u << bit_of(pin));
        *levels |= (uint8_t)(pins[pin].level << bit_of(pin));
    }
    return driven;
}

static void note(int pin)
{
    if (!log_file)
        return;
    fprintf(log_file, "%llu %llu %c%d %d\n", (unsigned long long)now_ns(),
            (unsigned long long)avr->cycle, pin < 14 ? 'D' : 'A', pin < 14 ? pin : pin - 14,
            pins[pin].level);
    fflush(log_file);
}

/* Tell libsimavr, which would otherwise let a pull-up win against what drives the pin. */
static void drive(int pin, bool driven, uint8_t level)
{
    char port = port_of(pin);
    pins[pin].driven = driven;
    pins[pin].level = level;
    uint8_t levels;
    avr_ioport_external_t external = {.name = (unsigned long)port};
    external.mask = driven_bits(port, &levels);
    external.value = levels;
    avr_ioctl(avr, AVR_IOCTL_IOPORT_SET_EXTERNAL(port), &external);
    /* From reset on D2's interrupt is in level mode, in which libsimavr would look at every cycle
     * whether it is still low, also later on. The firmware uses edges only. */
    avr_extint_set_strict_lvl_trig(avr, 0, 0);
    avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(port), bit_of(pin)), level);
    note(pin);
}

static uint8_t pulled_up(int pin)
{
    avr_ioport_state_t state;
    avr_ioctl(avr, AVR_IOCTL_IOPORT_GETSTATE(port_of(pin)), &state);
    return state.port >> bit_of(pin) & 1;
}

/* A pin that is an output reads what drives it from outside: a short circuit. */
static uint8_t on_read(avr_t *chip, avr_io_addr_t address, void *param)
{
    char port = *(const char *)param;
    uint8_t levels, driven = driven_bits(port, &levels);
    uint8_t value = library_read[port - 'B'].read(chip, address, library_read[port - 'B'].param);
    return (uint8_t)((value & ~driven) | levels);
}

/* ---- changes ---- */

static avr_cycle_count_t on_toggle(avr_t *chip, avr_cycle_count_t when, void *param)
{
    struct pin *pin = param;
    (void)chip;
    if (!pin->toggles)
        return 0;
    drive((int)(pin - pins), true, !pin->level);
    return --pin->toggles ? when + pin->every : 0;
}

static void apply(const struct change *change)
{
    struct pin *pin = &pins[change->pin];
    pin->toggles = 0;
    if (change->what == '~') {
        pin->toggles = change->toggles;
        pin->every = change->every;
        avr_cycle_timer_register(avr, pin->every, on_toggle, pin);
    } else if (change->what == 'z') {
        drive(change->pin, false, pulled_up(change->pin));
    } else {
        drive(change->pin, true, change->what == '1');
    }
}

static avr_cycle_count_t on_planned(avr_t *chip, avr_cycle_count_t when, void *param)
{
    (void)chip, (void)param;
    apply(&planned[planned_out++ % PLANNED]);
    while (planned_out != planned_in && !planned[planned_out % PLANNED].after)
        apply(&planned[planned_out++ % PLANNED]);
    return planned_out != planned_in ? when + planned[planned_out % PLANNED].after : 0;
}

static void plan(const struct change *change)
{
    if (planned_out == planned_in && !change->after) {
        apply(change);
        return;
    }
    if (planned_in - planned_out == PLANNED) {
        fprintf(stderr, "emulator: more than %d changes of inputs are planned\n", PLANNED);
        return;
    }
    planned[planned_in++ % PLANNED] = *change;
    if (planned_in - planned_out == 1)
        avr_cycle_timer_register(avr, change->after, on_planned, NULL);
}

/* ---- the FIFO ---- */

static bool parse(const char *line, struct change *change)
{
    char kind, rest;
    unsigned number;
    int length = 0;
    if (sscanf(line, "%c%u %c%n", &kind, &number, &change->what, &length) != 3)
        return false;
    bool known = (kind == 'D' && number < 14) || (kind == 'A' && number < 6);
    if (!known || !strchr("01z~", change->what))
        return false;
    change->pin = (uint8_t)(kind == 'D' ? number : number + 14);
    line += length;
    if (change->what == '~') {
        if (sscanf(line, "%u/%u%n", &change->toggles, &change->every, &length) != 2)
            return false;
        line += length;
        if (!change->toggles || !change->every)
            return false;
    }
    if (!*line)
        return true;
    return sscanf(line, " @%u%c", &change->after, &rest) == 1;
}

static void obey(char *line)
{
    struct change change = {0};
    if (parse(line, &change))
        plan(&change);
    else
        fprintf(stderr, "emulator: inputs: %s: not like \"A0 1\"\n", line);
}

void inputs_read(void)
{
    ssize_t count = fifo < 0 ? 0 : read(fifo, text + text_length, sizeof text - text_length - 1);
    if (count <= 0)
        return;
    text_length += (size_t)count;
    text[text_length] = 0;
    char *line = text, *end;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        obey(line);
    }
    text_length = strlen(line);
    memmove(text, line, text_length);
    if (text_length == sizeof text - 1)
        text_length = 0; /* no line is that long */
}

int inputs_fd(void)
{
    return fifo;
}

/* The chip's registers were cleared, and so were libsimavr's timers. */
void inputs_reset(void)
{
    for (int pin = 0; pin < PINS; pin++) {
        uint8_t level = pins[pin].driven && pins[pin].level, bit = (uint8_t)(1u << bit_of(pin));
        avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(port_of(pin)), bit_of(pin))->value = level;
        if (level)
            avr->data[register_of(port_of(pin))] |= bit;
        if (pins[pin].toggles)
            avr_cycle_timer_register(avr, pins[pin].every, on_toggle, &pins[pin]);
    }
    if (planned_out != planned_in)
        avr_cycle_timer_register(avr, 1 + planned[planned_out % PLANNED].after, on_planned, NULL);
}

void inputs_open(void)
{
    for (const char *port = ports; *port; port++) {
        avr_io_addr_t io = AVR_DATA_TO_IO(register_of(*port));
        library_read[*port - 'B'].read = avr->io[io].r.c;
        library_read[*port - 'B'].param = avr->io[io].r.param;
        avr->io[io].r.c = on_read;
        avr->io[io].r.param = (void *)port;
    }
    if (options.input_log_path && !(log_file = fopen(options.input_log_path, "we")))
        fail(options.input_log_path);
    if (!options.inputs_path)
        return;
    unlink(options.inputs_path);
    /* Open for writing as well: so it has no end when the last writer closes it. */
    if (mkfifo(options.inputs_path, 0600)
        || (fifo = open(options.inputs_path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
        fail(options.inputs_path);
}

void inputs_close(void)
{
    if (fifo >= 0)
        unlink(options.inputs_path);
}
