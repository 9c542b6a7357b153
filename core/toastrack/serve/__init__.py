"""One model for every process that can send a request: ``toastrack serve``."""
