"""Tasks that run beside the traffic and refresh what balancing knows."""
