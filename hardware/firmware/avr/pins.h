/* Which pin is which line and input; used by the firmware and by its emulator.
 *
 *   line      0   1   2   3   4    5    6    7       armed: the LED on D13 (PB5)
 *   Uno/Nano  D4  D5  D6  D7  D9   D10  D11  D12
 *   chip      PD4 PD5 PD6 PD7 PB1  PB2  PB3  PB4
 *
 *   input     0 (capture)  1   2   3   4      stop input
 *   Uno/Nano  D8           A0  A1  A2  A3     D2
 *   chip      PB0 (ICP1)   PC0 PC1 PC2 PC3    PD2 (INT0)
 *
 * Not D13, which boot loaders blink. D0 and D1 are the serial port. Lines 1 and 2 have levels: they
 * are timer 0's outputs OC0B and OC0A. */
#ifndef PINS_H
#define PINS_H

#define PORTD_OF_LINES(lines) ((uint8_t)((lines) << 4))
#define PORTB_OF_LINES(lines) ((uint8_t)((lines) >> 3 & 0x1E))
#define LINES_OF_PORTS(d, b) ((uint8_t)((d) >> 4 | ((b) & 0x1E) << 3))
#define ARMED_BIT 5 /* of port B */

/* Timer 0's register TCCR0A: fast PWM, and which lines it drives. */
#define PWM_MODE 0x03
#define PWM_OF_LINES(lines) ((uint8_t)(((lines) & 2) << 4 | ((lines) & 4) << 5))
#define LINES_OF_PWM(tccr0a) ((uint8_t)(((tccr0a) >> 4 & 2) | ((tccr0a) >> 5 & 4)))

#define CAPTURE_BIT 0     /* of port B */
#define CHANGE_BITS 0x0F  /* of port C: inputs 1 to 4 */
#define STOP_BIT 2        /* of port D */
#define INPUTS_OF_PORTS(b, c) ((uint8_t)(((b) & 1) | ((c) & CHANGE_BITS) << 1))

#endif
