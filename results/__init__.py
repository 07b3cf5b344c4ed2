"""What runs gave, beside what the papers print."""
