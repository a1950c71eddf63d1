/* What board.h asks of lines and guard; the edges themselves are made in edges.c. */
#include <avr/interrupt.h>

#include "edges.h"

/* ---- lines ---- */

/* The duty is taken over at the end of timer 0's period. If it rested, a period begins at once. */
static void set_duty(uint8_t line, uint8_t duty)
{
    if (!duty)
        return;
    if (line == 1)
        OCR0B = duty;
    else
        OCR0A = duty;
    if (!TCCR0B) {
        TCNT0 = 0xFF;
        TCCR0B = _BV(CS01); /* a period is 8 * 256 cycles */
    }
}

void levels_tick(void)
{
    cli();
    if (!LINES_OF_PWM(TCCR0A))
        TCCR0B = 0;
    sei();
}

/* Nothing else needs attention before a short pulse that begins now has ended. */
static inline bool undisturbed(uint16_t width)
{
    if (!lines.timeline.first)
        return true;
    uint32_t next = lines.timeline.first->at;
    return (int32_t)(next - ticks()) > (int32_t)(width + EARLY);
}

/* A pulse too short for the timeline, kept by waiting. */
static inline uint32_t pulse_now(uint8_t bit, uint16_t width)
{
    struct ports low = ports_of(lines.high);
    uint16_t reading = edge_now(ports_of(lines.high | bit));
    write_at((struct edge_due){reading + width, low});
    attend();
    return extend_reading(reading);
}

static inline void set_at_level(uint8_t bit, uint8_t duty)
{
    if (duty)
        at_level |= bit;
    else
        at_level &= ~bit;
}

/* Raise a line and enter its end. */
static inline uint32_t raise_for(uint8_t line, uint32_t width)
{
    lines.high |= bit_of_line[line];
    uint32_t rise = extend_reading(edge_now(ports_of(lines.high)));
    timeline_add(&lines.timeline, line, rise + width);
    attend();
    return rise;
}

bool port_raise(uint8_t line, uint8_t duty, uint32_t width, uint32_t *rise)
{
    uint8_t bit = bit_of_line[line];
    bool brief = width <= EARLY;
    set_duty(line, duty);
    cli();
    while (brief && !undisturbed((uint16_t)width)) {
        sei(); /* let the other edge be made first */
        __asm__ volatile("nop\n\tnop\n\tnop\n\tnop");
        cli();
    }
    bool allowed = lines.guarded;
    if (allowed) {
        set_at_level(bit, duty);
        if (brief) {
            *rise = pulse_now(bit, (uint16_t)width);
        } else {
            *rise = raise_for(line, width);
            serve_timeline();
        }
    }
    sei();
    return allowed;
}

bool port_hold(uint8_t line, uint8_t duty, uint32_t end)
{
    set_duty(line, duty);
    cli();
    bool held = lines.high & bit_of_line[line];
    if (held) {
        set_at_level(bit_of_line[line], duty);
        struct ports ports = ports_of(lines.high);
        TCCR0A |= ports.pwm; /* first, or the line would be low between the two */
        write_ports(ports);
        if (lines.timeline.items[line].at != end)
            timeline_set(&lines.timeline, line, end);
        serve_timeline();
    }
    sei();
    return held;
}

/* A first pulse that is too short for the timeline begins when it can be prepared. */
bool port_train(uint8_t line, const struct train *train, uint32_t *rise)
{
    lines.trains[line] = *train; /* not in use: the line has none */
    cli();
    bool allowed = lines.guarded;
    if (allowed) {
        at_level &= ~bit_of_line[line];
        lines.training |= bit_of_line[line];
        if (train->delay || train->width <= EARLY) {
            *rise = ticks() + (train->delay ? train->delay : EARLY);
            uart_poll();
            timeline_add(&lines.timeline, line, *rise);
        } else {
            *rise = raise_for(line, train->width);
        }
        serve_timeline();
    }
    sei();
    return allowed;
}

uint8_t port_drop(uint8_t dropped, uint32_t *tick)
{
    cli();
    uint8_t ended = (lines.high | lines.training) & dropped;
    lines.high &= ~dropped;
    lines.training &= ~dropped;
    *tick = extend_reading(edge_now(ports_of(lines.high)));
    sei();
    /* One at a time, to keep interrupts off for a short while only. What comes between finds a line
     * that is low and has no train: no harm. */
    for (uint8_t line = 0; line < LINES; line++) {
        if (ended & bit_of_line[line]) {
            cli();
            timeline_remove(&lines.timeline, line);
            sei();
        }
    }
    return ended;
}

uint8_t port_high(void)
{
    return *(volatile uint8_t *)&lines.high; /* an interrupt may have changed it */
}

uint8_t port_training(void)
{
    return *(volatile uint8_t *)&lines.training;
}

/* A line that timer 0 drives may read low at this moment. */
uint8_t port_levels(void)
{
    return LINES_OF_PORTS(PIND, PINB) | LINES_OF_PWM(TCCR0A);
}

/* ---- the guard ---- */

bool port_guard_start(uint32_t end)
{
    cli();
    bool well = !stop_is_said();
    if (well) {
        stopped = false;
        lines.guarded = true;
        guard_end = end;
        timeline_set(&lines.timeline, TIMELINE_GUARD, end);
        serve_timeline();
    }
    sei();
    return well;
}

/* Every frame does this, so it is quick: the entry in the timeline is moved when its time comes. */
bool port_guard_move(uint32_t end)
{
    cli();
    bool runs = lines.guarded;
    if (runs)
        guard_end = end;
    sei();
    return runs;
}

void port_guard_stop(void)
{
    cli();
    lines.guarded = false;
    timeline_remove(&lines.timeline, TIMELINE_GUARD);
    sei();
}

bool port_guard_runs(void)
{
    return *(volatile bool *)&lines.guarded;
}

bool port_was_stopped(uint32_t *tick)
{
    if (stopped)
        *tick = stop_tick;
    return stopped;
}

void port_show_armed(bool armed)
{
    cli();
    if (armed)
        PORTB |= _BV(ARMED_BIT);
    else
        PORTB &= ~_BV(ARMED_BIT);
    sei();
}
