package server

import (
	"errors"
	"time"
)

// AuditConfig is about the log of events.
type AuditConfig struct {
	// Keep is how long events stay; 0 keeps them for ever.
	Keep time.Duration `yaml:"keep"`
}

// leastAudit is the shortest time that events stay: who was refused yesterday may
// ask about it today.
const leastAudit = 24 * time.Hour

func (c AuditConfig) check() error {
	if c.Keep < 0 || c.Keep > 0 && c.Keep < leastAudit {
		return errors.New("audit.keep: 24h or more, or 0s to keep events for ever")
	}
	return nil
}
