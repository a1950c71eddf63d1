/* The chip's serial port on a pty, with what a USB bridge adds: reset on opening, one baud rate
 * that both ends must agree on, and bytes handed over in packets. */
#define _GNU_SOURCE
#include "emulator.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_uart.h>

#include "../firmware/protocol.h"

#define DETACHED_POLL_NS NS_PER_MS

static avr_uart_t *uart;
static FILE *wire_log;
static char device[64]; /* the end that the host opens */

static struct {
    int fd;
    bool attached;        /* somebody has the other end open */
    bool opened;          /* since serial_take_opened */
    uint64_t detached_ns; /* when the last one hung up */
    uint8_t in[64], out[64];
    int in_count, in_next, out_count;
    uint8_t held[2]; /* arrived behind the one that the chip has not read yet */
    uint8_t held_count;
    avr_cycle_count_t wire_free; /* when the last byte sent has left the chip */
} pty = {.fd = -1};

static unsigned uart_divider(void)
{
    return (unsigned)(avr->data[0xC4] | avr->data[0xC5] << 8) + 1; /* UBRR0 */
}

static unsigned cycles_per_bit(void)
{
    return uart_divider() * (avr->data[0xC0] & 2 ? 8 : 16); /* U2X0 in UCSR0A */
}

static bool same_baud(void)
{
    static const struct {
        speed_t code;
        unsigned baud;
    } speeds[] = {{B9600, 9600},     {B19200, 19200},   {B38400, 38400},     {B57600, 57600},
                  {B115200, 115200}, {B230400, 230400}, {B500000, 500000},   {B1000000, 1000000},
                  {B2000000, 2000000}};
    struct termios settings;
    if (tcgetattr(pty.fd, &settings))
        return false;
    unsigned chip = CLOCK_HZ / cycles_per_bit();
    for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++)
        if (speeds[i].code == cfgetospeed(&settings))
            return chip > speeds[i].baud - speeds[i].baud / 32
                   && chip < speeds[i].baud + speeds[i].baud / 32;
    return false;
}

/* What a receiver makes of bytes at another rate: something else. */
static void garble(uint8_t *bytes, int count)
{
    for (int i = 0; i < count; i++)
        bytes[i] = (uint8_t)(bytes[i] * 37 + 11);
}

static void log_wire(const char *what, const uint8_t *bytes, int count)
{
    if (!wire_log)
        return;
    fprintf(wire_log, "%llu %llu %s", (unsigned long long)now_ns(), (unsigned long long)avr->cycle,
            what);
    for (int i = 0; i < count; i++)
        fprintf(wire_log, i ? "%02x" : " %02x", bytes[i]);
    fputc('\n', wire_log);
    fflush(wire_log);
}

void serial_note(const char *what)
{
    log_wire(what, NULL, 0);
}

/* libsimavr counts a parity bit that is not sent. */
static unsigned correct_pace(void)
{
    unsigned byte_cycles = 10 * cycles_per_bit();
    uart->cycles_per_byte = byte_cycles;
    return byte_cycles;
}

/* Put a byte into libsimavr's UART, at once: it would count the wire time once more. */
static void put_received(uint8_t byte)
{
    uart->cycles_per_byte = 1;
    avr_raise_irq(uart->io.irq + UART_IRQ_INPUT, byte);
    correct_pace();
}

/* A byte from the host has arrived in full. libsimavr's UART would take 64 in advance; the chip
 * holds two, and one that is complete but has no place yet. */
static void deliver(uint8_t byte)
{
    if (uart->input.read == uart->input.write)
        put_received(byte);
    else if (pty.held_count < sizeof pty.held)
        pty.held[pty.held_count++] = byte;
    else
        avr_regbit_set(avr, uart->dor); /* and it is lost */
}

/* The firmware has read a byte. */
static void on_uart_room(avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq, (void)value, (void)param;
    if (!pty.held_count || uart->input.read != uart->input.write)
        return;
    uint8_t byte = pty.held[0];
    pty.held[0] = pty.held[1];
    pty.held_count--;
    put_received(byte);
}

static avr_cycle_count_t on_wire_byte(avr_t *chip, avr_cycle_count_t when, void *param)
{
    (void)chip, (void)param;
    deliver(pty.in[pty.in_next++]);
    return pty.in_next < pty.in_count ? when + correct_pace() : 0;
}

void serial_read(void)
{
    ssize_t count = read(pty.fd, pty.in, sizeof pty.in);
    pty.in_next = 0;
    pty.in_count = count > 0 ? (int)count : 0;
    if (pty.in_count == 0)
        return;
    log_wire("rx", pty.in, pty.in_count);
    if (!same_baud())
        garble(pty.in, pty.in_count);
    avr_cycle_timer_register(avr, correct_pace(), on_wire_byte, NULL);
}

/* A host that does not read loses bytes, as behind a real bridge. */
static void write_pty(void)
{
    if (!same_baud())
        garble(pty.out, pty.out_count);
    log_wire("tx", pty.out, pty.out_count);
    if (pty.attached && write(pty.fd, pty.out, (size_t)pty.out_count) < 0 && errno != EAGAIN
        && errno != EIO)
        fail("pty");
    pty.out_count = 0;
}

static avr_cycle_count_t on_wire_idle(avr_t *chip, avr_cycle_count_t when, void *param)
{
    (void)chip, (void)when, (void)param;
    if (pty.out_count)
        write_pty();
    return 0;
}

/* The firmware wrote its UART's data register: the byte is on the wire until wire_free. */
static void on_uart_output(avr_irq_t *irq, uint32_t value, void *param)
{
    (void)irq, (void)param;
    unsigned byte_cycles = correct_pace();
    if (pty.wire_free < avr->cycle)
        pty.wire_free = avr->cycle;
    pty.wire_free += byte_cycles;
    if (pty.out_count == (int)sizeof pty.out)
        write_pty();
    pty.out[pty.out_count++] = (uint8_t)value;
    bool hand_over = value == FRAME_END || pty.out_count == (int)sizeof pty.out;
    avr_cycle_timer_register(avr, pty.wire_free - avr->cycle + (hand_over ? 0 : 2 * byte_cycles),
                             on_wire_idle, NULL);
}

static void note_attached(bool attached)
{
    if (attached == pty.attached)
        return;
    pty.attached = attached;
    if (attached)
        pty.opened = true;
    else
        pty.detached_ns = now_ns();
    serial_note(attached ? "opened" : "closed");
}

/* Let at most `ns` pass; true as soon as there are bytes to read. */
bool serial_wait(uint64_t ns)
{
    struct timespec timeout = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
    struct pollfd pollers[] = {{.fd = pty.fd, .events = POLLIN},
                               {.fd = inputs_fd(), .events = POLLIN}};
    bool full = pty.in_next < pty.in_count;
    if (full || !pty.attached) {
        /* Poll would return at once: bytes that cannot be taken, or an end that is hung up. */
        if (timeout.tv_sec || timeout.tv_nsec > (long)DETACHED_POLL_NS)
            timeout = (struct timespec){0, (long)DETACHED_POLL_NS};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &timeout, NULL);
        timeout = (struct timespec){0};
    }
    if (ppoll(pollers, 2, &timeout, NULL) < 0 || pty.fd < 0)
        return false; /* a signal, which the main loop sees; or unplugged */
    note_attached(!(pollers[0].revents & POLLHUP));
    /* What a host writes right after opening arrives after the reset that opening causes. */
    return !full && !pty.opened && pollers[0].revents & POLLIN;
}

bool serial_take_opened(void)
{
    bool opened = pty.opened;
    pty.opened = false;
    return opened;
}

bool serial_unused(uint64_t ns, uint64_t now)
{
    return !pty.attached && now > pty.detached_ns + ns;
}

void serial_forget(void)
{
    pty.in_count = pty.in_next = 0;
    pty.out_count = 0;
    pty.held_count = 0;
}

void serial_connect(void)
{
    avr_io_t *part = avr->io_port;
    while (strcmp(part->kind, "uart"))
        part = part->next; /* this chip has one */
    uart = (avr_uart_t *)part;
    uart->flags = 0; /* neither print what is sent nor slow down polling */
    avr_irq_register_notify(part->irq + UART_IRQ_OUTPUT, on_uart_output, NULL);
    avr_irq_register_notify(part->irq + UART_IRQ_OUT_XON, on_uart_room, NULL);
}

const char *serial_open(void)
{
    int host_end;
    struct termios settings;
    if (options.wire_path && !(wire_log = fopen(options.wire_path, "we")))
        fail(options.wire_path);
    if (openpty(&pty.fd, &host_end, device, NULL, NULL))
        fail("openpty");
    tcgetattr(host_end, &settings);
    cfmakeraw(&settings);
    tcsetattr(host_end, TCSANOW, &settings);
    close(host_end);
    fcntl(pty.fd, F_SETFL, O_NONBLOCK);
    fcntl(pty.fd, F_SETFD, FD_CLOEXEC);
    pty.detached_ns = now_ns();
    unlink(options.link);
    if (symlink(device, options.link))
        fail(options.link);
    return device;
}

void serial_unplug(void)
{
    if (pty.fd < 0)
        return;
    serial_note("unplugged");
    close(pty.fd);
    pty.fd = -1;
    pty.attached = pty.opened = false;
    pty.detached_ns = now_ns();
}

void serial_close(void)
{
    char target[sizeof device];
    ssize_t length = readlink(options.link, target, sizeof target - 1);
    if (length < 0)
        return;
    target[length] = 0;
    if (!strcmp(target, device)) /* not somebody else's by now */
        unlink(options.link);
}
