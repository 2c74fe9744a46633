CREATE TABLE notes (
    -- Their order in the list.
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Clients may choose it, so that a request can be repeated.
    id uuid NOT NULL UNIQUE DEFAULT uuidv7(),
    title text NOT NULL,
    text text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
