package main

import (
	"bytes"
	"net"
	"strings"
	"time"
)

// padded is a good document of exactly n bytes.
func padded(id string, n int) []byte {
	raw := documentBytes(id, m{"x": ""})
	return bytes.Replace(raw, []byte(`"x":""`), []byte(`"x":"`+strings.Repeat("x", n-len(raw))+`"`), 1)
}

// badAnswer wants a refusal for what a host answers, and that it is forgotten:
// the same URL works as soon as the host is mended.
func (t *trial) badAnswer(what string, answer func(id string) response) *host {
	h := t.w.host(fresh("ft"))
	id := h.url("/c.json")
	h.put("/c.json", answer(id))
	t.fetchFail(what, id)
	t.check(h.count("/c.json") == 1, "%s: %d requests", what, h.count("/c.json"))
	h.client("/c.json", nil, "Cache-Control", "no-store")
	t.s.later(40 * time.Second) // past the back-off
	t.asks(what+", mended", t.john.visit(azOf(id)))
	return h
}

// badWire wants the same for what a host does on the wire.
func (t *trial) badWire(what string, set func(h *host)) *host {
	h := t.w.host(fresh("wire")).change(set)
	t.fetchFail(what, h.url("/c.json"))
	t.check(h.connections() == 1, "%s: %d connections", what, h.connections())
	return h
}

func drip(text string, every time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		for i := 0; ; i++ {
			if _, err := c.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
			time.Sleep(every)
		}
	}
}

// mute reads and says nothing.
func mute(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

func rawHead(head string, body []byte) func(string) response {
	return func(string) response {
		return response{raw: append([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"+head+"\r\n"), body...)}
	}
}

// frames is a flood of HTTP/2 frames of one type.
func frames(kind, flags byte, stream byte, payload int, n int) []byte {
	one := append([]byte{0, byte(payload >> 8), byte(payload), kind, flags, 0, 0, 0, stream}, make([]byte, payload)...)
	return append([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}, bytes.Repeat(one, n)...)
}

// life returns how long a document with these headers is used, up to what is
// asked: whether it is still used just before a moment, and not just after it.
func (t *trial) life(what string, want time.Duration, header ...string) {
	h := t.w.host(fresh("life"))
	id := h.client("/c.json", nil, header...)
	see := func() int { t.john.visit(azOf(id)); return h.count("/c.json") }
	t.check(see() == 1, "%s: %d fetches at first", what, h.count("/c.json"))
	t.s.later(want - 2*time.Second)
	t.check(see() == 1, "%s: fetched again before %v", what, want)
	t.s.later(4 * time.Second)
	t.check(see() == 2, "%s: not fetched again after %v", what, want)
}
