"""What trust starts from. Here: a pre-shared book of key slots."""
