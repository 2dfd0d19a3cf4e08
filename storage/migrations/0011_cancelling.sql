-- Its user wants a call to end, and whoever runs it could not be told: it learns of it when it renews the hold.
ALTER TABLE holds ADD COLUMN cancelled_at timestamptz;
