/* The board on an ATmega328P at 16 MHz (Arduino Uno, Nano): serial port, start, main loop. */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <avr/wdt.h>

#include "../board.h"
#include "health.h"
#include "pins.h"
#include "target.h"

#ifndef BAUD
#define BAUD 1000000ul
#endif
#define UBRR_VALUE ((F_CPU + 4 * BAUD) / (8 * BAUD) - 1)

const char port_name[] = FIRMWARE_NAME;

#define POLL_BYTES 16 /* in a stream without end; an order is taken in without delay */

/* ---- serial port: rings of 256 bytes, so that 8-bit indices wrap by themselves ---- */

static volatile uint8_t received[256], received_in, received_out;
static volatile uint8_t sending[256], sending_in, sending_out;

static inline void receive(void)
{
    bool damaged = UCSR0A & (_BV(FE0) | _BV(DOR0));
    uint8_t byte = UDR0;
    uint8_t next = received_in + 1;
    if (damaged || next == received_out)
        board_wire_errors++;
    if (next == received_out)
        return; /* the frame's CRC will be wrong */
    received[received_in] = byte;
    received_in = next;
}

void uart_poll(void)
{
    while (UCSR0A & _BV(RXC0))
        receive();
}

ISR(USART_RX_vect)
{
    receive();
}

ISR(USART_UDRE_vect)
{
    uint8_t out = sending_out;
    if (out == sending_in) {
        UCSR0B &= ~_BV(UDRIE0);
    } else {
        UDR0 = sending[out];
        sending_out = out + 1;
    }
}

void port_put(uint8_t byte)
{
    uint8_t next = sending_in + 1;
    while (next == sending_out)
        ; /* the interrupt makes room within one byte time */
    sending[sending_in] = byte;
    sending_in = next;
    UCSR0B |= _BV(UDRIE0);
}

bool port_has_room(uint8_t bytes)
{
    return (uint8_t)(sending_out - sending_in - 1) >= bytes;
}

static void uart_start(void)
{
    UCSR0A = _BV(U2X0);
    UBRR0 = UBRR_VALUE;
    UCSR0C = _BV(UCSZ01) | _BV(UCSZ00);
    UCSR0B = _BV(RXCIE0) | _BV(RXEN0) | _BV(TXEN0);
}

/* ---- start and main loop ---- */

static uint8_t reset_flags __attribute__((section(".noinit")));

/* Before the C runtime: lines low, the hardware watchdog off, which a watchdog reset leaves running
 * at its shortest period, and the memory that will be stack marked. */
__attribute__((naked, used, section(".init3"))) static void first_thing(void)
{
    TCCR0A = 0;
    PORTD = 0;
    PORTB = 0;
    DDRD = PORTD_OF_LINES(ALL_LINES);
    DDRB = PORTB_OF_LINES(ALL_LINES) | _BV(ARMED_BIT);
    reset_flags = MCUSR;
    MCUSR = 0;
    wdt_disable();
    stack_mark();
}

static uint8_t reset_cause(void)
{
    if (reset_flags & _BV(WDRF))
        return RESET_WATCHDOG;
    if (reset_flags & _BV(BORF))
        return RESET_BROWN_OUT;
    if (reset_flags & _BV(PORF))
        return RESET_POWER;
    return reset_flags & _BV(EXTRF) ? RESET_PIN : RESET_UNKNOWN;
}

/* What is done besides requests. */
static void poll(void)
{
    static uint8_t turn;
    board_poll();
    if (turn != turn_of_timer()) { /* every 4 ms */
        turn = turn_of_timer();
        board_tick();
        levels_tick();
    }
}

int main(void)
{
    uart_start();
    edges_start();
    set_sleep_mode(SLEEP_MODE_IDLE);
    wdt_enable(WDTO_60MS); /* only this loop feeds it */
    sei();
    board_start(reset_cause());
    for (;;) {
        wdt_reset(); /* also between the bytes of a stream without end */
        uint8_t next = received_out;
        bool idle = next == received_in;
        if (idle || next % POLL_BYTES == 0)
            poll();
        if (!idle) {
            received_out = next + 1;
            board_take(received[next]);
            continue;
        }
        cli();
        if (received_out == received_in) {
            sleep_enable();
            sei();
            sleep_cpu(); /* until a byte, an edge or the next overflow, 4 ms at most */
            sleep_disable();
        }
        sei();
    }
}
