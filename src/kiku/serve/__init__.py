"""The service: kiku's streams over the protocols that clients speak already, on one port."""
