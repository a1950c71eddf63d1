#include "board.h"

#include <string.h>

#include "frame.h"

#ifndef PROTOCOL_HASH
#error "PROTOCOL_HASH: the build must pass the hash of protocol.h"
#endif

static struct frame_reader reader;

static struct {
    uint16_t session; /* 0 = disarmed */
    uint16_t watchdog_ms;
    uint32_t guard_end;
    uint32_t longest_us[LINES]; /* 0 = not set, unusable */
    uint32_t rise[LINES];       /* tick of the last rising edge */
    uint8_t reset_cause;
    uint8_t events;
    uint16_t good, bad, refused, trips;
} board;

volatile uint16_t board_wire_errors;

struct request {
    uint8_t type, sequence, length; /* length of what follows */
    const uint8_t *data;
};

/* ---- numbers on the wire ---- */

static uint32_t read_number(const uint8_t *data, uint8_t length)
{
    uint32_t value = 0;
    while (length--)
        value = value << 8 | data[length];
    return value;
}

static uint8_t *write_u16(uint8_t *to, uint16_t value)
{
    *to++ = (uint8_t)value;
    *to++ = (uint8_t)(value >> 8);
    return to;
}

static uint8_t *write_u32(uint8_t *to, uint32_t value)
{
    return write_u16(write_u16(to, (uint16_t)value), (uint16_t)(value >> 16));
}

/* ---- answers and events ---- */

static void answer(const struct request *request, uint8_t type, uint32_t tick)
{
    uint8_t payload[6] = {type, request->sequence};
    write_u32(payload + 2, port_us(tick));
    frame_write(payload, sizeof payload, port_put);
}

static void refuse(const struct request *request, uint8_t reason)
{
    uint8_t payload[7] = {ANSWER_REFUSED, request->sequence};
    *write_u32(payload + 2, port_us(port_now())) = reason;
    frame_write(payload, sizeof payload, port_put);
    board.refused++;
}

static void introduce(uint8_t type, uint8_t sequence)
{
    uint8_t payload[FRAME_MAX_ANSWER] = {type, sequence, PROTOCOL_VERSION};
    uint8_t *to = write_u32(payload + 3, PROTOCOL_HASH);
    *to++ = LINES;
    *to++ = board.reset_cause;
    uint8_t name = (uint8_t)strlen(port_name);
    memcpy(to, port_name, name);
    frame_write(payload, (uint8_t)(to - payload) + name, port_put);
}

static void answer_status(const struct request *request)
{
    uint8_t payload[11] = {ANSWER_STATUS, request->sequence};
    uint8_t *to = write_u32(payload + 2, port_us(port_now()));
    to = write_u16(to, board.session);
    *to++ = port_levels();
    write_u16(to, board.watchdog_ms);
    frame_write(payload, sizeof payload, port_put);
}

static void answer_counters(const struct request *request)
{
    uint8_t payload[12] = {ANSWER_COUNTERS, request->sequence};
    uint8_t *to = write_u16(payload + 2, board.good);
    to = write_u16(to, board.bad);
    to = write_u16(to, board_wire_errors);
    to = write_u16(to, board.refused);
    write_u16(to, board.trips);
    frame_write(payload, sizeof payload, port_put);
}

/* ---- arming and the watchdog ---- */

static void disarm(void)
{
    board.session = 0;
    port_show_armed(false);
}

static uint32_t next_guard_end(void)
{
    board.guard_end = port_now() + board.watchdog_ms * (1000 * PORT_TICKS_PER_US);
    return board.guard_end;
}

/* The target has dropped the lines already, at the very tick; this is the bookkeeping. */
static void notice_trip(void)
{
    uint8_t payload[8] = {EVENT_WATCHDOG, board.events++};
    write_u16(write_u32(payload + 2, port_us(board.guard_end)), board.session);
    disarm();
    board.trips++;
    frame_write(payload, sizeof payload, port_put);
}

static void make_safe(void)
{
    uint32_t tick;
    port_drop(ALL_LINES, &tick);
    port_guard_stop();
    disarm();
}

static void arm(const struct request *request)
{
    uint16_t session = (uint16_t)read_number(request->data, 2);
    uint8_t usable = 0;
    for (uint8_t line = 0; line < LINES; line++)
        usable |= board.longest_us[line] != 0;
    if (session == 0) {
        refuse(request, REASON_VALUE);
    } else if (!usable) {
        refuse(request, REASON_NO_LIMIT);
    } else if (board.session != 0 && board.session != session) {
        refuse(request, REASON_SESSION);
    } else {
        board.session = session;
        port_guard_start(next_guard_end());
        port_show_armed(true);
        answer(request, ANSWER_DONE, port_now());
    }
}

/* ---- settings ---- */

static void set_watchdog(const struct request *request)
{
    uint16_t ms = (uint16_t)read_number(request->data, 2);
    if (board.session) {
        refuse(request, REASON_ARMED);
    } else if (ms < MIN_WATCHDOG_MS || ms > MAX_WATCHDOG_MS) {
        refuse(request, REASON_VALUE);
    } else {
        board.watchdog_ms = ms;
        answer(request, ANSWER_DONE, port_now());
    }
}

static void set_limit(const struct request *request)
{
    uint8_t line = request->data[0];
    uint32_t longest_us = read_number(request->data + 1, 4);
    if (board.session) {
        refuse(request, REASON_ARMED);
    } else if (line >= LINES) {
        refuse(request, REASON_LINE);
    } else if (longest_us > MAX_WIDTH_US || (longest_us && longest_us < MIN_WIDTH_US)) {
        refuse(request, REASON_VALUE);
    } else {
        board.longest_us[line] = longest_us;
        answer(request, ANSWER_DONE, port_now());
    }
}

/* ---- orders to lines ---- */

static void order_off(const struct request *request, uint8_t line)
{
    uint32_t tick;
    uint8_t moved = port_drop((uint8_t)(1u << line), &tick);
    answer(request, moved ? ANSWER_DONE : ANSWER_UNCHANGED, tick);
}

/* A new order never keeps a line high beyond its longest on-time, counted from its rising edge. */
static bool extend(uint8_t line, uint32_t width)
{
    uint32_t end = port_now() + width;
    uint32_t latest = board.rise[line] + board.longest_us[line] * PORT_TICKS_PER_US;
    if ((int32_t)(end - latest) > 0)
        end = latest;
    return port_hold(line, end);
}

static void order_high(const struct request *request, uint8_t line, bool exact)
{
    uint32_t width_us = read_number(request->data, request->length);
    uint32_t width = width_us * PORT_TICKS_PER_US;
    if (!board.session) {
        refuse(request, REASON_DISARMED);
    } else if (!board.longest_us[line]) {
        refuse(request, REASON_NO_LIMIT);
    } else if (width_us < MIN_WIDTH_US || width_us > board.longest_us[line]) {
        refuse(request, REASON_WIDTH);
    } else if (exact && port_high() & (1u << line)) {
        refuse(request, REASON_BUSY);
    } else if (!exact && extend(line, width)) {
        answer(request, ANSWER_UNCHANGED, port_now());
    } else if (port_raise(line, width, &board.rise[line])) {
        answer(request, ANSWER_DONE, board.rise[line]);
    } else {
        refuse(request, REASON_DISARMED); /* the watchdog tripped a moment ago */
    }
}

static void order(const struct request *request)
{
    uint8_t line = request->type & 0x0F;
    uint8_t kind = request->type & 0xF0;
    bool off = kind == REQUEST_OFF;
    if (off ? request->length != 0 : request->length < 1 || request->length > 4)
        refuse(request, REASON_LENGTH);
    else if (line >= LINES)
        refuse(request, REASON_LINE);
    else if (off)
        order_off(request, line);
    else
        order_high(request, line, kind == REQUEST_PULSE);
}

/* ---- requests ---- */

static uint8_t settings_length(uint8_t type)
{
    switch (type) {
    case REQUEST_ARM:
    case REQUEST_WATCHDOG:
        return 2;
    case REQUEST_LIMIT:
        return 5;
    default:
        return 0;
    }
}

static void obey(const struct request *request)
{
    switch (request->type) {
    case REQUEST_HELLO:
        introduce(ANSWER_HELLO, request->sequence);
        break;
    case REQUEST_SAFE:
        make_safe();
        answer_status(request);
        break;
    case REQUEST_STATUS:
        answer_status(request);
        break;
    case REQUEST_COUNTERS:
        answer_counters(request);
        break;
    case REQUEST_BEAT:
        answer(request, ANSWER_DONE, port_now());
        break;
    case REQUEST_ARM:
        arm(request);
        break;
    case REQUEST_WATCHDOG:
        set_watchdog(request);
        break;
    case REQUEST_LIMIT:
        set_limit(request);
        break;
    default:
        refuse(request, REASON_TYPE);
    }
}

void board_poll(void)
{
    if (board.session && !port_guard_runs())
        notice_trip();
}

void board_take(uint8_t byte)
{
    uint8_t length = frame_take(&reader, byte);
    if (length == FRAME_PENDING)
        return;
    if (length == FRAME_BAD) {
        board.bad++;
        return;
    }
    board.good++;
    board_poll();
    struct request request = {reader.data[0], reader.data[1], (uint8_t)(length - 2),
                              reader.data + 2};
    uint8_t kind = request.type & 0xF0;
    if (kind == REQUEST_OFF || kind == REQUEST_ON || kind == REQUEST_PULSE)
        order(&request);
    else if (request.length != settings_length(request.type))
        refuse(&request, REASON_LENGTH);
    else
        obey(&request);
    if (board.session) /* last, because it may wait while the edge may not */
        port_guard_move(next_guard_end());
}

void board_start(uint8_t reset_cause)
{
    memset(&board, 0, sizeof board);
    board.watchdog_ms = DEFAULT_WATCHDOG_MS;
    board.reset_cause = reset_cause;
    frame_restart(&reader);
    port_put(FRAME_END); /* close what a boot loader may have left on the wire */
    introduce(EVENT_BOOT, board.events++);
}
