/* Which pin is which line; used by the firmware and by its emulator.
 *
 *   line      0   1   2   3   4    5    6    7       armed: the LED on D13 (PB5)
 *   Uno/Nano  D4  D5  D6  D7  D9   D10  D11  D12
 *   chip      PD4 PD5 PD6 PD7 PB1  PB2  PB3  PB4
 *
 * Not D13, which boot loaders blink. D0 and D1 are the serial port; D2 (INT0) and D8 (timer 1's
 * input capture) are left for inputs. */
#ifndef PINS_H
#define PINS_H

#define PORTD_OF_LINES(lines) ((uint8_t)((lines) << 4))
#define PORTB_OF_LINES(lines) ((uint8_t)((lines) >> 3 & 0x1E))
#define LINES_OF_PORTS(d, b) ((uint8_t)((d) >> 4 | ((b) & 0x1E) << 3))
#define ARMED_BIT 5 /* of port B */

#endif
