package server

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
)

// PARConfig is about authorization requests that clients push before the browser
// comes (RFC 9126).
type PARConfig struct {
	// Required takes no others.
	Required bool `yaml:"required"`
	// Life is how long a pushed request waits for its person.
	Life time.Duration `yaml:"life"`
}

// checkFAPI refuses tokens that are signed with RS256 beside a rule that holds
// clients to FAPI 2.0, which has it for nobody (section 5.4.1).
func (c *Config) checkFAPI(set *policy.Set) error {
	i := slices.IndexFunc(set.Rules, func(r policy.Rule) bool { return r.FAPI })
	if i < 0 || c.Tokens.SigningAlg != jose.RS256 {
		return nil
	}
	return fmt.Errorf("tokens.signing_alg: policy rule %q holds clients to FAPI 2.0, which has no RS256 (POL-09)", set.Rules[i].Name)
}

func (c PARConfig) check() error {
	if c.Life < 5*time.Second || c.Life > 10*time.Minute {
		return errors.New("par.life: between 5s and 10m (PAR-05)")
	}
	return nil
}
