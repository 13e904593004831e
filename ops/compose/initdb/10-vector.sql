-- Run once, by the entry point of the image, when the volume is new. The bus needs no extension; RAG will.
create extension if not exists vector;
