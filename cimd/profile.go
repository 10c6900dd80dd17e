package cimd

// Profile names the text whose rules decide where the drafts differ. The empty
// profile is ProfileMCP.
type Profile string

// The profiles.
const (
	// ProfileMCP is what MCP clients and servers do: client_name is expected, and
	// the authentication rules are those of the newest draft.
	ProfileMCP Profile = "mcp"
	// ProfileCIMD02 is draft-ietf-oauth-client-id-metadata-document-02.
	ProfileCIMD02 Profile = "cimd-02"
	// ProfileCIMD03 is draft -03, which has a client authentication section.
	ProfileCIMD03 Profile = "cimd-03"
)
