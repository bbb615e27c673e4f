"""Who may join: the certificate authority, join tokens, enrolment, and who has been revoked."""
