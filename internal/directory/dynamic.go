package directory

import (
	"encoding/json"
	"fmt"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
)

// Declared is what a client that registered itself said about itself beyond what
// has a column of its own in its row. It is part of the metadata in the row.
type Declared struct {
	SigningAlg string `json:"token_endpoint_auth_signing_alg,omitempty"`
	DPoPBound  bool   `json:"dpop_bound_access_tokens,omitempty"`
	RequirePAR bool   `json:"require_pushed_authorization_requests,omitempty"`
}

// declared reads the metadata of a row. What cannot be read is not ours.
func declared(row store.Client) (d Declared) {
	if row.Source == SourceDCR && len(row.Metadata) > 0 {
		_ = json.Unmarshal(row.Metadata, &d) // this server wrote it
	}
	return d
}

// Dynamic returns what the policy says about clients that register themselves,
// before any of them is known, and the policy itself.
func (d *Directory) Dynamic() (policy.Decision, *policy.Set) {
	set := d.Policy()
	return set.Decide(policy.Subject{Dynamic: true}), set
}

// CheckRegistration reads what a client says that registers itself, under the
// rules for documents: the members of body have to be those of a document without
// client_id. The error is a *cimd.Error.
func CheckRegistration(body map[string]json.RawMessage, grants []string) (*cimd.Document, error) {
	const self = "https://registered.bonafide.id/client.json"
	id, err := cimd.Parse(self)
	if err != nil {
		return nil, err
	}
	body["client_id"] = json.RawMessage(`"` + self + `"`)
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("write down a registration: %w", err)
	}
	return cimd.Validate(id, raw, cimd.ProfileMCP, cimd.Supported{GrantTypes: grants})
}
