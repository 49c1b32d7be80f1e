// Probe is what the cluster is checked with.
//
//	probe serve FILE   adds a line to FILE, then answers every request on port 8080 with its lines
//	probe get URL      prints what URL answers; tries for 30 seconds
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: probe serve FILE | probe get URL")
	}
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2])
	case "get":
		err = get(os.Args[2])
	default:
		err = fmt.Errorf("%q is neither serve nor get", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(path string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(file, "started as %d:%d\n", os.Getuid(), os.Getgid()); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	log.Printf("serving %s", path)
	return http.ListenAndServe(":8080", http.HandlerFunc(
		func(answer http.ResponseWriter, request *http.Request) {
			http.ServeFile(answer, request, path)
		}))
}

func get(url string) error {
	client := http.Client{Timeout: 2 * time.Second}
	deadline := time.Now().Add(30 * time.Second)
	for {
		text, err := read(client, url)
		if err == nil {
			_, err = io.WriteString(os.Stdout, text)
			return err
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func read(client http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return string(text), err
}
