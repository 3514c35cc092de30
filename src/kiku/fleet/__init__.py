"""Adapters for fleets of machines: what one machine cannot hear."""
