package server

import (
	"errors"
	"time"
)

// PARConfig is about authorization requests that clients push before the browser
// comes (RFC 9126).
type PARConfig struct {
	// Required takes no others.
	Required bool `yaml:"required"`
	// Life is how long a pushed request waits for its person.
	Life time.Duration `yaml:"life"`
}

func (c PARConfig) check() error {
	if c.Life < 5*time.Second || c.Life > 10*time.Minute {
		return errors.New("par.life: between 5s and 10m (PAR-05)")
	}
	return nil
}
