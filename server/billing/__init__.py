"""Billing: what people pay for credits, with Stripe as the payment provider."""
