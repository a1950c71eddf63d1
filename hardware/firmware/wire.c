#include "wire.h"

#include "board.h"
#include "frame.h"

uint16_t wire_refused;
static uint8_t events;

void wire_restart(void)
{
    wire_refused = 0;
    events = 0;
}

uint32_t read_number(const uint8_t *data, uint8_t length)
{
    uint32_t value = 0;
    while (length--)
        value = value << 8 | data[length];
    return value;
}

uint8_t *write_u16(uint8_t *to, uint16_t value)
{
    *to++ = (uint8_t)value;
    *to++ = (uint8_t)(value >> 8);
    return to;
}

uint8_t *write_u32(uint8_t *to, uint32_t value)
{
    return write_u16(write_u16(to, (uint16_t)value), (uint16_t)(value >> 16));
}

void answer(const struct request *request, uint8_t type, uint32_t tick)
{
    uint8_t payload[6] = {type, request->sequence};
    write_u32(payload + 2, port_us(tick));
    frame_write(payload, sizeof payload, port_put);
}

void refuse(const struct request *request, uint8_t reason)
{
    uint8_t payload[7] = {ANSWER_REFUSED, request->sequence};
    *write_u32(payload + 2, port_us(port_now())) = reason;
    frame_write(payload, sizeof payload, port_put);
    wire_refused++;
}

void send_event(uint8_t type, uint8_t *payload, uint8_t length)
{
    payload[0] = type;
    payload[1] = events++;
    frame_write(payload, length, port_put);
}
