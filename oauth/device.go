package oauth

// What a device is told that asks for its token (RFC 8628 section 3.5). The first
// two say that it may ask again.
const (
	AuthorizationPending Code = "authorization_pending"
	SlowDown             Code = "slow_down"
	ExpiredToken         Code = "expired_token"
)
