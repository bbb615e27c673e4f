"""Our code that conducts: it gathers nodes, averages their updates and keeps what was learned."""
