/* py_gate_where.c: the parts of a context that say from where: addresses, places, devices, sessions, and the resource. */
#include "py_gate.h"

#include "../core/alloc.h"

int kest_gate_take_ip(kest_state *state, PyObject *given, const char *what, kest_gate_ip *out)
{
    kest_str text;

    if (kest_gate_text(state, given, what, &text) < 0)
        return -1;
    if (kest_gate_ip_read(text, out))
        return 0;
    kest_gate_input_error(state, "%s: %.60R is not an IPv4 or IPv6 address (no port, no zone)", what, given);
    return -1;
}

/* GeoLocation and DeviceFingerprint check themselves when they are made, and never change. */
int kest_gate_read_geo(kest_state *state, PyObject *given, const char *what, kest_gate_geo *out)
{
    PyObject *country, *latitude = NULL, *longitude = NULL;
    kest_str text;
    int rc = -1;

    if ((PyObject *)Py_TYPE(given) != state->gate_geo_type) {
        PyErr_Format(PyExc_TypeError, "%s is a GeoLocation, not %s", what, Py_TYPE(given)->tp_name);
        return -1;
    }
    if ((country = PyObject_GetAttrString(given, "country_code")) && (latitude = PyObject_GetAttrString(given, "latitude")) &&
        (longitude = PyObject_GetAttrString(given, "longitude")) && kest_gate_text(state, country, what, &text) == 0 && text.len == 2) {
        memcpy(out->country, text.data, 2);
        out->known = true;
        out->placed = PyFloat_Check(latitude) && PyFloat_Check(longitude);
        if (out->placed) {
            out->latitude = PyFloat_AS_DOUBLE(latitude);
            out->longitude = PyFloat_AS_DOUBLE(longitude);
        }
        rc = 0;
    }
    Py_XDECREF(country);
    Py_XDECREF(latitude);
    Py_XDECREF(longitude);
    return rc;
}

/* The text that identifies the device, kept in *held. */
int kest_gate_take_device(kest_state *state, PyObject *given, const char *what, PyObject **held, kest_str *out)
{
    if ((PyObject *)Py_TYPE(given) != state->gate_device_type) {
        PyErr_Format(PyExc_TypeError, "%s is a DeviceFingerprint, not %s", what, Py_TYPE(given)->tp_name);
        return -1;
    }
    *held = PyObject_GetAttrString(given, "hash");
    return *held ? kest_gate_text(state, *held, what, out) : -1;
}

static int hex_value(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* The usual spellings of a UUID: hyphenated, plain, in braces, as a URN. */
static bool read_uuid(kest_str text, uint8_t out[KEST_UUID_LEN])
{
    size_t o = 0;

    if (text.len == 45 && memcmp(text.data, "urn:uuid:", 9) == 0)
        text = (kest_str){text.data + 9, 36};
    else if (text.len == 38 && text.data[0] == '{' && text.data[37] == '}')
        text = (kest_str){text.data + 1, 36};
    if (text.len != 36 && text.len != 32)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        const bool hyphen = o == 8 || o == 13 || o == 18 || o == 23;

        if (hyphen && text.len == 36 && text.data[i] == '-') {
            out[o++] = '-';
            continue;
        }
        if (hyphen && text.len == 32)
            out[o++] = '-';
        if ((hyphen && text.len == 36) || hex_value(text.data[i]) < 0)
            return false;
        out[o++] = (uint8_t)"0123456789abcdef"[hex_value(text.data[i])];
    }
    return o == KEST_UUID_LEN;
}

int kest_gate_take_session(kest_state *state, ContextObject *self, PyObject *given)
{
    size_t visible = 0;
    kest_str text;

    if (kest_gate_text(state, given, "session_id", &text) < 0)
        return -1;
    self->ctx.has_session = true;
    if (read_uuid(text, self->uuid)) {
        self->ctx.session = (kest_str){self->uuid, KEST_UUID_LEN};
        return 0;
    }
    while (visible < text.len && text.data[visible] > ' ' && text.data[visible] <= '~')
        visible++;
    if (text.len == 0 || text.len > 128 || visible < text.len) {
        kest_gate_input_error(state, "session_id is a UUID or 1 to 128 visible ASCII characters without spaces");
        return -1;
    }
    self->ctx.session = text;
    return 0;
}

int kest_gate_take_resource(kest_state *state, ContextObject *self, PyObject *given)
{
    kest_str text;
    size_t len;

    if (kest_gate_spend(state, given, "resource", &text, &self->allowance) < 0)
        return -1;
    if (text.len > KEST_GATE_MAX_RESOURCE) {
        kest_gate_input_error(state, "resource is longer than the %d bytes that a gate accepts", KEST_GATE_MAX_RESOURCE);
        return -1;
    }
    if (kest_gate_path_is_normal(text)) {
        self->ctx.resource = text;
        self->ctx.has_resource = true;
        return 0;
    }
    if (!(self->path = kest_malloc(text.len))) {
        PyErr_NoMemory();
        return -1;
    }
    self->ctx.has_resource = kest_gate_path(text, self->path, &len);
    self->ctx.resource = (kest_str){self->path, self->ctx.has_resource ? len : 0};
    return 0;
}
