// Command tlog holds a log against what the Go ecosystem makes of it: golang.org/x/mod/sumdb/{note,tlog}, which know
// nothing of Kest, and transparency-dev's verifier of cosignatures. It exits with 1, and says why, when they refuse it.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// folder reads tiles from a log's folder, under the names of c2sp.org/tlog-tiles.
type folder string

func (f folder) Height() int { return height }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, t := range tiles {
		name := strings.Replace(t.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(f), name))
		if errors.Is(err, os.ErrNotExist) && t.W < 1<<height {
			full := t
			full.W = 1 << height
			name = strings.Replace(full.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
			if data, err = os.ReadFile(filepath.Join(string(f), name)); err == nil {
				data = data[:t.W*tlog.HashSize]
			}
		}
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

// checkpoint opens a signed note and reads the tree that it speaks of.
func checkpoint(text []byte, verifiers ...note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(text, note.VerifierList(verifiers...))
	if err != nil {
		return tlog.Tree{}, err
	}
	if len(opened.Sigs) != len(verifiers) {
		return tlog.Tree{}, fmt.Errorf("%d of %d signatures are there", len(opened.Sigs), len(verifiers))
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifiers[0].Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

func logVerifier(vkey string) note.Verifier {
	verifier, err := note.NewVerifier(vkey)
	must(err)
	return verifier
}

// check reads the whole log: every tile, every record, and proofs about some of them.
func check(dir, vkey string) error {
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := checkpoint(text, logVerifier(vkey))
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tree, folder(dir))
	if root, err := tlog.TreeHash(tree.N, hashes); err != nil || root != tree.Hash {
		return fmt.Errorf("root: %v", err)
	}
	for first := int64(0); first < tree.N; first += 256 {
		records, err := bundle(dir, first/256, min(256, tree.N-first))
		if err != nil {
			return err
		}
		for i, record := range records {
			index := first + int64(i)
			stored, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil || stored[0] != tlog.RecordHash(record) {
				return fmt.Errorf("record %d does not hash to its leaf: %v", index, err)
			}
			if i%37 != 0 {
				continue
			}
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, stored[0]); err != nil {
				return err
			}
		}
	}
	fmt.Println(tree.N)
	return nil
}

func bundle(dir string, index, width int64) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: -1, N: index, W: int(width)}
	name := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data/", height), "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	var records [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New("a bundle is cut off")
		}
		size := int(binary.BigEndian.Uint16(data))
		records = append(records, data[2:2+size])
		data = data[2+size:]
	}
	if int64(len(records)) != width {
		return nil, errors.New("a bundle has another number of records")
	}
	return records, nil
}

func readHashes(lines []string) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

// inclusion verifies a c2sp.org/tlog-proof of the record in a file.
func inclusion(file, vkey, record string) error {
	text, err := os.ReadFile(file)
	must(err)
	data, err := os.ReadFile(record)
	must(err)
	head, signed, found := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a proof")
	}
	lines = lines[1:]
	if extra, ok := strings.CutPrefix(lines[0], "extra "); ok {
		if _, err := base64.StdEncoding.DecodeString(extra); err != nil {
			return err
		}
		lines = lines[1:]
	}
	number, ok := strings.CutPrefix(lines[0], "index ")
	index, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil {
		return errors.New("no index")
	}
	hashes, err := readHashes(lines[1:])
	if err != nil {
		return err
	}
	tree, err := checkpoint([]byte(signed), logVerifier(vkey))
	if err != nil {
		return err
	}
	return tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(data))
}

// consistency verifies that one checkpoint extends another, by hashes in base64.
func consistency(older, newer, vkey string, proof []string) error {
	var trees []tlog.Tree
	for _, name := range []string{older, newer} {
		text, err := os.ReadFile(name)
		must(err)
		tree, err := checkpoint(text, logVerifier(vkey))
		if err != nil {
			return err
		}
		trees = append(trees, tree)
	}
	hashes, err := readHashes(proof)
	if err != nil {
		return err
	}
	return tlog.CheckTree(hashes, trees[1].N, trees[1].Hash, trees[0].N, trees[0].Hash)
}

// cosigned verifies a checkpoint with the signature of a log and those of witnesses.
func cosigned(file, vkey string, witnesses []string) error {
	text, err := os.ReadFile(file)
	must(err)
	verifiers := []note.Verifier{logVerifier(vkey)}
	for _, witness := range witnesses {
		verifier, err := fnote.NewVerifierForCosignatureV1(witness)
		if err != nil {
			return err
		}
		verifiers = append(verifiers, verifier)
	}
	_, err = checkpoint(text, verifiers...)
	return err
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func main() {
	flag.Parse()
	arguments := flag.Args()
	var err error
	switch {
	case len(arguments) == 3 && arguments[0] == "check":
		err = check(arguments[1], arguments[2])
	case len(arguments) == 4 && arguments[0] == "inclusion":
		err = inclusion(arguments[1], arguments[2], arguments[3])
	case len(arguments) >= 4 && arguments[0] == "consistency":
		err = consistency(arguments[1], arguments[2], arguments[3], arguments[4:])
	case len(arguments) >= 4 && arguments[0] == "cosigned":
		err = cosigned(arguments[1], arguments[2], arguments[3:])
	default:
		err = errors.New("check DIR VKEY | inclusion PROOF VKEY RECORD | consistency OLD NEW VKEY HASH... | cosigned CHECKPOINT VKEY WITNESS...")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
