package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/register"
)

// RegistrationConfig says whether clients may register themselves (RFC 7591),
// which MCP has deprecated in favour of documents. What such a client may do is
// for the policy to say: in rules with "dynamic: true", else by its default.
type RegistrationConfig struct {
	Enabled bool `yaml:"enabled"`
	// Life is how long a registration lasts after its last use: a consent, or a
	// request of the client about its registration.
	Life time.Duration `yaml:"life"`
	// PerHour bounds the registrations from one network, MostPerHour those from
	// everywhere, both for each process; Most those that live at a time.
	PerHour     int `yaml:"per_hour"`
	MostPerHour int `yaml:"most_per_hour"`
	Most        int `yaml:"most"`
	// ApplicationType is that of clients that name none: web, as OpenID Connect has
	// it, or native for the sake of clients that were written before MCP asked for
	// it.
	ApplicationType string `yaml:"application_type"`
}

func defaultRegistration() RegistrationConfig {
	return RegistrationConfig{Life: 30 * 24 * time.Hour, PerHour: 20, MostPerHour: 500, Most: 10_000, ApplicationType: "web"}
}

func (c RegistrationConfig) check() error {
	switch {
	case c.Life < time.Hour || c.Life > 366*24*time.Hour:
		return errors.New("registration.life: between 1h and 8784h (DCR-01)")
	case c.PerHour < 1 || c.MostPerHour < 1 || c.Most < 1:
		return errors.New("registration: per_hour, most_per_hour and most are 1 or more; to let nobody register, leave enabled out")
	case c.Most > 1_000_000:
		return errors.New("registration.most: at most 1000000")
	case c.ApplicationType != "web" && c.ApplicationType != "native":
		return fmt.Errorf("registration.application_type: %q is not one of web, native", c.ApplicationType)
	}
	return nil
}

// buildRegistration builds the registration endpoint where it is switched on.
func (s *Server) buildRegistration() (err error) {
	c := s.cfg.Registration
	if !c.Enabled {
		return nil
	}
	s.register, err = register.New(register.Config{
		Store: s.store, Directory: s.directory, Edge: s.edge, Audit: s.audit, Now: s.opts.Now,
		Life: c.Life, PerHour: c.PerHour, MostPerHour: c.MostPerHour, Most: c.Most,
		ApplicationType: c.ApplicationType, IDTokenAlg: s.cfg.Tokens.SigningAlg,
	})
	return err
}
