package directory

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/bonafide-id/bonafide/cimd"
)

// CheckRedirect reports why uri cannot be a redirect URI of a registered client.
// It asks the validator of documents, so that both kinds of clients live under
// the same rules.
func CheckRedirect(uri string) error {
	const self = "https://registered.bonafide.id/client.json"
	id, err := cimd.Parse(self)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"client_id": self, "client_name": "registered", "redirect_uris": []string{uri}})
	if err != nil {
		return err
	}
	var e *cimd.Error
	if _, err := cimd.Validate(id, body, cimd.ProfileMCP, cimd.Supported{}); errors.As(err, &e) {
		return fmt.Errorf("%s (%s)", strings.TrimPrefix(e.Hint, "redirect_uris[0]: "), e.Rule)
	} else if err != nil {
		return err
	}
	return nil
}
