/* The processor, its output lines, and its pace: emulated cycles follow wall time. */
#include "emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <simavr/avr_ioport.h>
#include <simavr/sim_core.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_interrupts.h>

#include "../firmware/avr/pins.h"
#include "../firmware/protocol.h"

#define SLICE_CYCLES 320 /* a running CPU looks at the clock and the pty this often: 20 us */
#define MOST_LATE_NS (20 * NS_PER_MS) /* then emulated time is set back instead of hurrying on */
#define LOOP_FOREVER 0xCFFF           /* opcode of rjmp to itself */

avr_t *avr;
static void (*library_reset)(avr_t *);
static FILE *edge_log;
static FILE *level_log;
static uint8_t levels;       /* of the lines, as last logged */
static uint8_t duties[LINES]; /* the same; 0 = timer 0 does not drive it */

enum { TIFR1 = 0x36, TCCR0A = 0x44, OCR0A = 0x47, OCR0B = 0x48 };
static const avr_io_addr_t pwm_registers[] = {TCCR0A, OCR0A, OCR0B};
static struct {
    avr_io_write_t write;
    void *param;
} library_write[sizeof pwm_registers / sizeof *pwm_registers];

static struct {
    uint64_t ns;
    avr_cycle_count_t cycle;
} origin; /* wall time and cycle that belong together */

static struct {
    bool active;
    uint32_t address;
    uint8_t code[2];
} hang;

/* ---- lines ---- */

static uint8_t driven_high(char port)
{
    avr_ioport_state_t state;
    avr_ioctl(avr, AVR_IOCTL_IOPORT_GETSTATE(port), &state);
    return state.port & state.ddr;
}

static void log_edges(void)
{
    uint8_t lines = LINES_OF_PORTS(driven_high('D'), driven_high('B'));
    lines |= LINES_OF_PWM(avr->data[TCCR0A]);
    uint64_t ns = now_ns();
    for (int line = 0; line < LINES; line++)
        if ((lines ^ levels) >> line & 1)
            fprintf(edge_log, "%llu %llu %d %d\n", (unsigned long long)ns,
                    (unsigned long long)avr->cycle, line, lines >> line & 1);
    if (lines != levels)
        fflush(edge_log);
    levels = lines;
}

static void log_duties(void)
{
    uint8_t switching = LINES_OF_PWM(avr->data[TCCR0A]);
    for (int line = 1; line <= 2; line++) {
        uint8_t duty = switching >> line & 1 ? avr->data[line == 1 ? OCR0B : OCR0A] : 0;
        if (level_log && duty != duties[line]) {
            fprintf(level_log, "%llu %llu %d %d\n", (unsigned long long)now_ns(),
                    (unsigned long long)avr->cycle, line, duty);
            fflush(level_log);
        }
        duties[line] = duty;
    }
}

static void on_pwm(avr_t *chip, avr_io_addr_t address, uint8_t value, void *param)
{
    size_t which = (size_t)((const avr_io_addr_t *)param - pwm_registers);
    library_write[which].write(chip, address, value, library_write[which].param);
    log_edges();
    log_duties();
}

/* libsimavr allows one callback per register and has its own there: call that first. */
static void watch_pwm(void)
{
    for (size_t i = 0; i < sizeof pwm_registers / sizeof *pwm_registers; i++) {
        avr_io_addr_t io = AVR_DATA_TO_IO(pwm_registers[i]);
        library_write[i].write = avr->io[io].w.c;
        library_write[i].param = avr->io[io].w.param;
        avr->io[io].w.c = on_pwm;
        avr->io[io].w.param = (void *)&pwm_registers[i];
    }
}

/* Writing a one clears that flag; libsimavr clears all of the timer's, whatever is written. */
static void on_flags(avr_t *chip, avr_io_addr_t address, uint8_t value, void *param)
{
    (void)param;
    for (int i = 0; i < chip->interrupts.vector_count; i++) {
        avr_int_vector_t *vector = chip->interrupts.vector[i];
        if (vector->raised.reg == address && value >> vector->raised.bit & 1)
            avr_clear_interrupt(chip, vector);
    }
}

static void on_port(avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq, (void)value, (void)param;
    log_edges();
}

/* ---- pace ---- */

static uint64_t ns_of_cycle(avr_cycle_count_t cycle)
{
    return origin.ns + (cycle - origin.cycle) * 125 / 2; /* 62.5 ns each */
}

static avr_cycle_count_t cycle_of_ns(uint64_t ns)
{
    return origin.cycle + (ns - origin.ns) * 2 / 125;
}

/* Let wall time catch up with `target`, less if bytes come before; the CPU's clock follows. */
static void advance_to(avr_cycle_count_t target)
{
    uint64_t due = ns_of_cycle(target), ns = now_ns();
    bool bytes = serial_wait(ns < due ? due - ns : 0);
    ns = now_ns();
    if (ns < due) {
        avr_cycle_count_t reached = cycle_of_ns(ns);
        if (reached > avr->cycle)
            avr->cycle = reached;
    } else {
        avr->cycle = target;
        if (ns - due > MOST_LATE_NS)
            origin.ns += ns - due;
    }
    if (bytes)
        serial_read();
    inputs_read();
    if (options.linger_ns && serial_unused(options.linger_ns, ns))
        stop_wanted = 1;
    if (options.end_ns && ns > options.end_ns)
        stop_wanted = 1;
}

/* One step of the CPU: libsimavr calls it through avr_run. */
static void run(avr_t *chip)
{
    static avr_cycle_count_t next_look;
    if (chip->state == cpu_Running)
        chip->pc = avr_run_one(chip);
    avr_cycle_count_t idle = avr_cycle_timer_process(chip);
    if (chip->state == cpu_Sleeping)
        advance_to(chip->cycle + idle);
    if (chip->interrupt_state)
        avr_service_interrupts(chip);
    if (chip->state == cpu_Running && chip->cycle >= next_look) {
        do
            advance_to(chip->cycle);
        while (now_ns() < ns_of_cycle(chip->cycle) && !stop_wanted);
        next_look = chip->cycle + SLICE_CYCLES;
    }
}

/* ---- resets and faults ---- */

/* Called by libsimavr at every reset, with all registers cleared. */
static void on_reset(avr_t *chip)
{
    if (hang.active)
        memcpy(chip->flash + hang.address, hang.code, sizeof hang.code);
    hang.active = false;
    serial_forget();
    serial_note("reset");
    log_edges();
    log_duties();
    if (library_reset)
        library_reset(chip);
    inputs_reset();
}

void chip_reset_pin(void)
{
    avr_reset(avr);
    avr_regbit_set(avr, avr->reset_flags.extrf);
}

void chip_hang(void)
{
    static const uint8_t loop[2] = {LOOP_FOREVER & 0xFF, LOOP_FOREVER >> 8};
    if (hang.active)
        return;
    serial_note("hang");
    hang.active = true;
    hang.address = avr->pc;
    memcpy(hang.code, avr->flash + avr->pc, sizeof hang.code);
    memcpy(avr->flash + avr->pc, loop, sizeof loop);
    avr->sreg[S_I] = 0;
    avr->state = cpu_Running;
}

/* ---- start ---- */

/* libsimavr tells on standard output what it loads; only errors are of interest. */
static void log_errors(avr_t *chip, const int level, const char *format, va_list arguments)
{
    (void)chip;
    if (level == LOG_ERROR)
        vfprintf(stderr, format, arguments);
}

void chip_make(void)
{
    elf_firmware_t firmware = {0};
    avr_global_logger_set(log_errors);
    if (access(options.firmware, R_OK))
        fail(options.firmware);
    if (elf_read_firmware(options.firmware, &firmware)) {
        fprintf(stderr, "emulator: %s: not an ELF file for the AVR\n", options.firmware);
        exit(1);
    }
    edge_log = fopen(options.edge_path, "we");
    if (!edge_log)
        fail(options.edge_path);
    if (options.level_path && !(level_log = fopen(options.level_path, "we")))
        fail(options.level_path);
    avr = avr_make_mcu_by_name("atmega328p");
    avr_init(avr);
    avr_load_firmware(avr, &firmware);
    if (options.boot_loader)
        bootloader_load(options.boot_loader);
    avr->frequency = CLOCK_HZ;
    avr->run = run;
    library_reset = avr->reset;
    avr->reset = on_reset;
    watch_pwm();
    avr->io[AVR_DATA_TO_IO(TIFR1)].w.c = on_flags;
    for (const char *port = "BD"; *port; port++)
        avr_irq_register_notify(
            avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(*port), IOPORT_IRQ_PIN_ALL), on_port, NULL);
}

void chip_start(void)
{
    origin.ns = now_ns();
    origin.cycle = avr->cycle;
}

int chip_step(void)
{
    return avr_run(avr);
}
