"""What tools need of the machine: supervised processes, the sandbox, a searchable corpus, a database, a browser."""
