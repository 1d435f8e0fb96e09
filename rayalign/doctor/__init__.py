"""What `rayalign doctor` looks at: each check answers findings, and none of them changes anything. No Ray in here."""
