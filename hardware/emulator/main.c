/* Runs the board's firmware on an emulated ATmega328P in real time, its serial port on a pty.
 *
 *   emulator FIRMWARE.elf PTY-LINK EDGE-LOG [options]
 *
 *   --linger-ms N      end by itself N ms after the last user of the pty hung up (default: never);
 *                      so it outlives a host that was killed, and then goes away
 *   --max-seconds N    end after N seconds whatever happens (default: never)
 *   --wire-log FILE    log the bytes of both directions
 *   --level-log FILE   log what timer 0 does with the lines that have levels
 *   --inputs FIFO      make this FIFO and let what is written to it drive the chip's pins; how is
 *                      at the top of inputs.c
 *   --input-log FILE   log what drives them
 *   --no-reset-on-open a board whose DTR line does not reset it
 *   --boot-loader HEX  start this boot loader at every reset, which starts the firmware
 *   --realtime         ask for real-time priority; goes on without if that is not allowed
 *
 * Prints "ready DEVICE" when the pty can be opened. The edge log has one line per edge of an output
 * line, written at once: CLOCK_MONOTONIC in ns, CPU cycle, line 0..7, level. The wire log has: ns,
 * cycle, "rx" (host to board) or "tx" and the bytes in hex, or "opened", "closed", "reset", "hang",
 * "unplugged". A line that timer 0 drives counts as high in the edge log; the level log has: ns,
 * cycle, line, duty (1 to 255, 0 when it is no longer driven). The input log has: ns, cycle, pin
 * (D8, A0), level.
 *
 * As with a real board, opening the port resets the chip, a host at another baud rate sees and
 * causes garbage, and the USB bridge hands over what it has at every FRAME_END or when the line has
 * been idle for two bytes. SIGUSR1 hangs the firmware: an endless loop with interrupts off, until
 * its hardware watchdog resets the chip. SIGUSR2 pulls the cable out for good, while the chip keeps
 * its power: the pty is closed. SIGALRM presses the reset button. */
#define _GNU_SOURCE
#include "emulator.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

struct options options = {.reset_on_open = true};
volatile sig_atomic_t stop_wanted, hang_wanted, unplug_wanted, reset_wanted;

void fail(const char *what)
{
    fprintf(stderr, "emulator: %s: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void on_signal(int number)
{
    if (number == SIGUSR1)
        hang_wanted = 1;
    else if (number == SIGUSR2)
        unplug_wanted = 1;
    else if (number == SIGALRM)
        reset_wanted = 1;
    else
        stop_wanted = 1;
}

static void catch_signals(void)
{
    struct sigaction handled = {.sa_handler = on_signal}, ignored = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &handled, NULL);
    sigaction(SIGINT, &handled, NULL);
    sigaction(SIGUSR1, &handled, NULL);
    sigaction(SIGUSR2, &handled, NULL);
    sigaction(SIGALRM, &handled, NULL);
    sigaction(SIGHUP, &ignored, NULL); /* the host's terminal may go away */
    sigaction(SIGPIPE, &ignored, NULL); /* and who reads what is printed */
}

static void usage(void)
{
    fprintf(stderr, "usage: emulator FIRMWARE.elf PTY-LINK EDGE-LOG [--linger-ms N] "
                    "[--max-seconds N] [--wire-log FILE] [--level-log FILE] [--inputs FIFO] "
                    "[--input-log FILE] [--no-reset-on-open] [--boot-loader FILE.hex] "
                    "[--realtime]\n");
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-')
        usage();
    return value;
}

static void parse(int argc, char **argv)
{
    static const struct option known[] = {{"linger-ms", required_argument, NULL, 'l'},
                                          {"max-seconds", required_argument, NULL, 'm'},
                                          {"wire-log", required_argument, NULL, 'w'},
                                          {"level-log", required_argument, NULL, 'v'},
                                          {"inputs", required_argument, NULL, 'i'},
                                          {"input-log", required_argument, NULL, 'j'},
                                          {"no-reset-on-open", no_argument, NULL, 'n'},
                                          {"boot-loader", required_argument, NULL, 'b'},
                                          {"realtime", no_argument, NULL, 'r'},
                                          {0}};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'l':
            options.linger_ns = number(optarg) * NS_PER_MS;
            break;
        case 'm':
            options.end_ns = now_ns() + number(optarg) * NS_PER_S;
            break;
        case 'w':
            options.wire_path = optarg;
            break;
        case 'v':
            options.level_path = optarg;
            break;
        case 'i':
            options.inputs_path = optarg;
            break;
        case 'j':
            options.input_log_path = optarg;
            break;
        case 'n':
            options.reset_on_open = false;
            break;
        case 'b':
            options.boot_loader = optarg;
            break;
        case 'r':
            options.realtime = true;
            break;
        default:
            usage();
        }
    }
    if (argc - optind != 3)
        usage();
    options.firmware = argv[optind];
    options.link = argv[optind + 1];
    options.edge_path = argv[optind + 2];
}

/* One step, and what was asked for meanwhile; false at the end. */
static bool go_on(int *state)
{
    *state = chip_step();
    if (serial_take_opened() && options.reset_on_open)
        chip_reset_pin();
    if (hang_wanted) {
        hang_wanted = 0;
        chip_hang();
    }
    if (unplug_wanted) {
        unplug_wanted = 0;
        serial_unplug();
    }
    if (reset_wanted) {
        reset_wanted = 0;
        chip_reset_pin();
    }
    return !stop_wanted && *state != cpu_Done && *state != cpu_Crashed;
}

int main(int argc, char **argv)
{
    int state = cpu_Running;
    parse(argc, argv);
    catch_signals();
    prctl(PR_SET_TIMERSLACK, 1ul);
    if (options.realtime)
        (void)sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 20});
    chip_make();
    inputs_open();
    serial_connect();
    printf("ready %s\n", serial_open());
    fflush(stdout);
    chip_start();
    while (go_on(&state))
        ;
    serial_close();
    inputs_close();
    if (state == cpu_Crashed)
        fprintf(stderr, "emulator: the firmware crashed at %#x\n", avr->pc);
    return state == cpu_Crashed;
}
