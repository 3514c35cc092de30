"""The service: kiku's streams behind the protocols that clients speak already, on one port."""
